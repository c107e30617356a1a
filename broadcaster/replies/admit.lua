-- Make a message known, unless its user has too many that have not ended.
-- KEYS: message, open
-- ARGV: message id, user as JSON, how many may be open (0: any number), now, seconds that it waits for a worker,
--   seconds that it counts until settle.lua says whether it is queued
-- Answers 1, or 0 when there are too many.
-- Whoever ends a message takes it out of the open ones; one that nobody ever ends is forgotten in time.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4])
local limit = tonumber(ARGV[3])
if limit > 0 and not redis.call('ZSCORE', KEYS[2], ARGV[1]) and redis.call('ZCARD', KEYS[2]) >= limit then
  return 0
end
redis.call('HSETNX', KEYS[1], 'user', ARGV[2])
redis.call('HSETNX', KEYS[1], 'state', 'queued')
redis.call('EXPIRE', KEYS[1], ARGV[5], 'NX')
redis.call('ZADD', KEYS[2], ARGV[4] + ARGV[6], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
