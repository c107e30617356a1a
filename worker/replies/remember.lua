-- Store a value of a running reply, unless there is one.
-- KEYS: message, steps
-- ARGV: claim, field, value
-- Returns {'ok', stored value} or {'fenced'}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'state')
if fields[1] ~= ARGV[1] or fields[2] ~= 'streaming' then
  return {'fenced'}
end
redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3])
return {'ok', redis.call('HGET', KEYS[2], ARGV[2])}
