-- Log and publish consecutive entries of any kind; as append.lua does with text.
-- KEYS: message, log, bus channel, steps, approvals
-- ARGV: claim, offset of the first entry, envelope to publish before it or '', usage so far as JSON or '', final marker
-- behind the last or '', how the reply began as JSON or '', the names of the fields for text, kind, data and token
-- index; then of each entry: log entry id, kind ('' for text), data, token index ('' if it is the offset), envelope,
-- private data or '', call that needs an approval or ''; with a marker its id and its field
-- Returns {'ok', next, cancel requested: 0 or 1}, {'fenced'} or {'gap', next}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'next', 'cancel', 'state')
if fields[1] ~= ARGV[1] or fields[4] ~= 'streaming' then
  return {'fenced'}
end
local next, offset, last = tonumber(fields[2]), tonumber(ARGV[2]), #ARGV
if offset > next then
  return {'gap', next}
end
if ARGV[3] ~= '' and offset == next then -- otherwise it was published by an earlier call
  redis.call('SPUBLISH', KEYS[3], ARGV[3])
end
if ARGV[6] ~= '' then
  redis.call('HSETNX', KEYS[1], 'begun', ARGV[6])
end
if ARGV[5] ~= '' then
  last = last - 2
end
for at = 11, last, 7 do
  if offset == next then -- otherwise the entry is logged already, by an earlier call
    local id, kind, data, index = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    if ARGV[at + 5] ~= '' then -- before the entry, which says that it is there
      redis.call('HSET', KEYS[4], offset, ARGV[at + 5])
    end
    if ARGV[at + 6] ~= '' then
      redis.call('HSETNX', KEYS[5], ARGV[at + 6], '')
    end
    if kind ~= '' then
      redis.call('XADD', KEYS[2], id, ARGV[8], kind, ARGV[9], data, ARGV[10], index)
    elseif index ~= '' then
      redis.call('XADD', KEYS[2], id, ARGV[7], data, ARGV[10], index)
    else
      redis.call('XADD', KEYS[2], id, ARGV[7], data)
    end
    redis.call('SPUBLISH', KEYS[3], ARGV[at + 4])
    next = next + 1
  end
  offset = offset + 1
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'next', next, 'usage', ARGV[4])
else
  redis.call('HSET', KEYS[1], 'next', next)
end
if ARGV[5] ~= '' and #redis.call('XRANGE', KEYS[2], ARGV[last + 1], ARGV[last + 1]) == 0 then
  redis.call('XADD', KEYS[2], ARGV[last + 1], ARGV[last + 2], ARGV[5])
end
return {'ok', next, fields[3] == '1' and 1 or 0}
