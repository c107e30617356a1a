-- Append a job to the stream again, so that a waiting worker gets it at once.
-- KEYS: jobs
-- ARGV: group, consumer, job id, field, job
-- Returns 1, or 0 if the job belongs to another consumer by now.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending or pending[2] ~= ARGV[2] then
  return 0
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
redis.call('XADD', KEYS[1], '*', ARGV[4], ARGV[5])
return 1
