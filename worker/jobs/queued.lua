-- Publish the position of a message, as long as it waits and is not cancelled.
-- KEYS: message, bus channel
-- ARGV: envelope
-- Returns 1, or 0 if it does not wait any more. A message of another program has no hash yet.
local fields = redis.call('HMGET', KEYS[1], 'state', 'cancel')
if fields[1] and fields[1] ~= 'queued' or fields[2] == '1' then
  return 0
end
redis.call('SPUBLISH', KEYS[2], ARGV[1])
return 1
