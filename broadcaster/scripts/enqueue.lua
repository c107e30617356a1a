-- Queue a job once per mark, so that a repeated request can always be carried on from where the first one broke off.
-- KEYS: jobs, mark
-- ARGV: field, job, seconds that the mark stays
-- Answers 1, or 0 when it was queued before.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
redis.call('XADD', KEYS[1], '*', ARGV[1], ARGV[2]) -- first: an error here must not leave the mark
redis.call('SET', KEYS[2], '1', 'EX', ARGV[3])
return 1
