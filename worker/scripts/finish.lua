-- End a message: its state, its one terminal event, and the time its log stays.
-- KEYS: message, log, active, bus channel, open
-- ARGV: claim, message id, state, error for people or '', envelope, seconds to keep
-- Answers {'ok'} or {'fenced'}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'state')
if fields[1] ~= ARGV[1] then
  return {'fenced'}
end
if fields[2] ~= 'streaming' then -- ended under this very claim: a repeated call
  return {'ok'}
end
redis.call('HSET', KEYS[1], 'state', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'error', ARGV[4])
end
redis.call('SPUBLISH', KEYS[4], ARGV[5])
redis.call('SREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return {'ok'}
