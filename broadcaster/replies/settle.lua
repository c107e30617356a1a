-- What became of a message that admit.lua has let in: its job is queued, or was refused.
-- KEYS: message, open
-- ARGV: message id, when to forget it in Unix time if it is queued, else 0
-- A job may end before this is called: what is not open any more stays so.
if ARGV[2] ~= '0' then
  redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[1])
  return
end
redis.call('ZREM', KEYS[2], ARGV[1])
local fields = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if fields[1] == 'queued' and not fields[2] then -- no worker has ever had it
  redis.call('DEL', KEYS[1])
end
