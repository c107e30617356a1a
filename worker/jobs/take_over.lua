-- Claim jobs with an expired lease, and return how often each was delivered.
-- KEYS: jobs
-- ARGV: group, consumer, milliseconds of a lease, count
-- Returns {{id, {field, value ...}, deliveries} ...}.
local answer = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], '0-0', 'COUNT', ARGV[4])
local entries = {}
for at, entry in ipairs(answer[2]) do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)[1]
  entries[at] = {entry[1], entry[2], pending[4]}
end
return entries
