-- Put a dead letter back into its queue, once.
-- KEYS: jobs, dead
-- ARGV: id of the dead letter, field, job
-- Returns 1, or 0 if it was gone.
if redis.call('XDEL', KEYS[2], ARGV[1]) == 0 then
  return 0
end
redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[3])
return 1
