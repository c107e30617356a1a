-- As take_over.lua, but leave the jobs of one consumer alone: those that wait for their turn have no lease.
-- KEYS: jobs
-- ARGV: group, consumer, milliseconds of a lease, count, consumer to leave alone
-- Returns {{id, {field, value ...}, deliveries} ...}.
local entries, left = {}, tonumber(ARGV[4])
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for at = 1, #flat, 2 do
    info[flat[at]] = flat[at + 1]
  end
  if left > 0 and info.pending > 0 and info.name ~= ARGV[5] then
    for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', left, info.name)) do
      local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], pending[1])[1]
      if entry then -- otherwise it was deleted
        entries[#entries + 1], left = {entry[1], entry[2], pending[4] + 1}, left - 1
      end
    end
  end
end
return entries
