-- Queue a job, unless the queue is full; once per mark, so that a repeated request can always be carried on from
-- where the first one broke off.
-- KEYS: jobs, mark
-- ARGV: field, job, seconds that the mark stays (0: none is made), how many jobs may be queued (0: any number)
-- Answers 1, 0 when it was queued before, or -1 when the queue is full.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
local limit = tonumber(ARGV[4])
if limit > 0 and redis.call('XLEN', KEYS[1]) >= limit then
  return -1
end
redis.call('XADD', KEYS[1], '*', ARGV[1], ARGV[2]) -- first: an error here must not leave the mark
if ARGV[3] ~= '0' then
  redis.call('SET', KEYS[2], '1', 'EX', ARGV[3])
end
return 1
