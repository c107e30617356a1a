-- Move a job to the dead letters, once.
-- KEYS: jobs, dead
-- ARGV: group, job id, field, job, reason, dead letters to keep
-- Returns 1, or 0 if the job was gone.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', ARGV[3], ARGV[4], 'reason', ARGV[5], 'id', ARGV[2])
return 1
