-- Start the lease of jobs anew, or set how much of it is used up. Those of another consumer stay untouched: a plain
-- XCLAIM would steal them back.
-- KEYS: jobs
-- ARGV: group, consumer, milliseconds used up, job ids
-- Answers the ids that are not the consumer's any more.
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
