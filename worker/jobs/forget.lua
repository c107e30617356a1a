-- Remove this consumer, and those that have been idle for long. Never one with pending jobs: they would be lost.
-- KEYS: jobs
-- ARGV: group, consumer, milliseconds idle
-- Returns how many were removed.
local removed = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for at = 1, #flat, 2 do
    info[flat[at]] = flat[at + 1]
  end
  if info.pending == 0 and (info.name == ARGV[2] or info.idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
    removed = removed + 1
  end
end
return removed
