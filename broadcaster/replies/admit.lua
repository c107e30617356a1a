-- Record a message, unless its user has too many open ones.
-- KEYS: message, open
-- ARGV: message id, user as JSON, maximum of open messages (0: no limit), now in Unix time, seconds that the
--   message waits for a worker, seconds that it counts as open until settle.lua records whether it is queued,
--   its conversation or '', what was sent there
-- Returns 1, or 0 if there are too many.
-- Ending a message removes it from the open ones. One that never ends expires. A message that a worker has claimed
-- was admitted before, by another request with its idempotency key.
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'queued' then
  return 1
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4])
local limit = tonumber(ARGV[3])
if limit > 0 and not redis.call('ZSCORE', KEYS[2], ARGV[1]) and redis.call('ZCARD', KEYS[2]) >= limit then
  return 0
end
redis.call('HSETNX', KEYS[1], 'user', ARGV[2])
redis.call('HSETNX', KEYS[1], 'state', 'queued')
if ARGV[7] ~= '' then
  redis.call('HSETNX', KEYS[1], 'conversation', ARGV[7])
  redis.call('HSETNX', KEYS[1], 'sent', ARGV[8])
end
redis.call('EXPIRE', KEYS[1], ARGV[5], 'NX')
redis.call('ZADD', KEYS[2], ARGV[4] + ARGV[6], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
