-- Record whether the job of a message that admit.lua has admitted is queued or refused.
-- KEYS: message, open
-- ARGV: message id, its expiry in Unix time if the job is queued, else 0
-- A job may end before this is called: a message that is no longer open stays so.
if ARGV[2] ~= '0' then
  redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[1])
  return
end
redis.call('ZREM', KEYS[2], ARGV[1])
local fields = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if fields[1] == 'queued' and not fields[2] then -- no worker has claimed it
  redis.call('DEL', KEYS[1])
end
