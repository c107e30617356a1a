-- Store that nobody has decided on a call in time, unless somebody has. The first decision stands.
-- KEYS: message, approvals
-- ARGV: claim, call, decision as JSON
-- Returns {'ok', stored decision} or {'fenced'}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'state')
if fields[1] ~= ARGV[1] or fields[2] ~= 'streaming' then
  return {'fenced'}
end
local known = redis.call('HGET', KEYS[2], ARGV[2])
if not known or known == '' then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  known = ARGV[3]
end
return {'ok', known}
