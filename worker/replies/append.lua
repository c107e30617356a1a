-- Log and publish consecutive tokens. Each is logged first, so that whoever sees a gap can read it from the log.
-- KEYS: message, log, bus channel
-- ARGV: claim, index of the first token, field, then (log entry id, text, envelope) of each token
-- Returns {'ok', next, cancel requested: 0 or 1}, {'fenced'} or {'gap', next}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'next', 'cancel', 'state')
if fields[1] ~= ARGV[1] or fields[4] ~= 'streaming' then
  return {'fenced'}
end
local next = tonumber(fields[2])
local index = tonumber(ARGV[2])
if index > next then
  return {'gap', next}
end
for at = 4, #ARGV, 3 do
  if index == next then -- otherwise the token is logged already, by an earlier call
    redis.call('XADD', KEYS[2], ARGV[at], ARGV[3], ARGV[at + 1])
    redis.call('SPUBLISH', KEYS[3], ARGV[at + 2])
    next = next + 1
  end
  index = index + 1
end
redis.call('HSET', KEYS[1], 'next', next)
return {'ok', next, fields[3] == '1' and 1 or 0}
