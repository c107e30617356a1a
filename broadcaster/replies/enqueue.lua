-- Queue a job, unless the queue is full. Once per mark, so that a repeated request can complete one that was
-- interrupted at any point.
-- KEYS: jobs, mark
-- ARGV: field, job, lifetime of the mark in seconds (0: no mark), maximum of queued jobs (0: no limit)
-- Returns 1, 0 if it was queued before, or -1 if the queue is full.
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
