-- Put a dead letter back among the jobs, once.
-- KEYS: jobs, dead
-- ARGV: id of the letter, field, job
-- Answers 1, or 0 when it was gone.
if redis.call('XDEL', KEYS[2], ARGV[1]) == 0 then
  return 0
end
redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[3])
return 1
