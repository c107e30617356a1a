-- Set how much of the lease of jobs is used up: 0 renews it. Jobs of other consumers are left alone, whereas a plain
-- XCLAIM would take them over.
-- KEYS: jobs
-- ARGV: group, consumer, milliseconds used up, job ids
-- Returns the ids that belong to another consumer by now.
local lost = {}
for at = 4, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[at], ARGV[at], 1)[1]
  if pending and pending[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[at], 'IDLE', ARGV[3], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[at]
  end
end
return lost
