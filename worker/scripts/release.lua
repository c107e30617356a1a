-- Give a message back as if it had never been claimed. Only one of which nobody saw anything.
-- KEYS: message, active
-- ARGV: claim, message id
-- Answers {'ok'}, {'fenced'} or {'begun'}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'next', 'state')
if fields[1] ~= ARGV[1] or fields[3] ~= 'streaming' then
  return {'fenced'}
end
if tonumber(fields[2]) > 0 then
  return {'begun'}
end
redis.call('HINCRBY', KEYS[1], 'attempt', -1)
redis.call('HDEL', KEYS[1], 'claim')
redis.call('HSET', KEYS[1], 'state', 'queued')
redis.call('SREM', KEYS[2], ARGV[2])
return {'ok'}
