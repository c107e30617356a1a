-- Remove consumers that are gone: this one, and others idle for long. Never one that still has jobs, for
-- removing a consumer drops its pending jobs.
-- KEYS: jobs
-- ARGV: group, consumer, milliseconds idle
-- Answers how many were removed.
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
