-- Write the final marker, which says how the message ends, behind all its tokens. The first decision stands.
-- KEYS: message, log
-- ARGV: claim, id of the final marker, field, value, tokens that the log must have
-- Returns {'ok'}, {'fenced'} or {'gap', next}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'state', 'next')
if fields[1] ~= ARGV[1] or fields[2] ~= 'streaming' then
  return {'fenced'}
end
if tonumber(fields[3]) < tonumber(ARGV[5]) then -- Redis lost tokens: the marker would end an incomplete log
  return {'gap', tonumber(fields[3])}
end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then
  redis.call('XADD', KEYS[2], ARGV[2], ARGV[3], ARGV[4])
end
return {'ok'}
