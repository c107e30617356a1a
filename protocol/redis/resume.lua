-- Queue a parked job again, once.
-- KEYS: parked, waiting, jobs
-- ARGV: name of the message, field
-- Returns 1, or 0 if it is not parked.
local job = redis.call('HGET', KEYS[1], ARGV[1])
if job then
  redis.call('XADD', KEYS[3], '*', ARGV[2], job) -- first: an error here must not lose the job
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return job and 1 or 0
