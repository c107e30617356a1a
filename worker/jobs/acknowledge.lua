-- Remove a finished job from the stream.
-- KEYS: jobs
-- ARGV: group, job id
-- Returns 1, or 0 if it was gone.
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
