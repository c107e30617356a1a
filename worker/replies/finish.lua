-- End a message: store its state, publish its terminal event, and let its log expire.
-- KEYS: message, log, active, bus channel, open, ended, steps, approvals
-- ARGV: claim, message id, state, error text for users or '', envelope, seconds of retention; how long and how many
-- ended messages are remembered; tokens that the log must have
-- Returns {'ok'}, {'fenced'} or {'gap', next}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'state', 'next')
if fields[1] ~= ARGV[1] then
  return {'fenced'}
end
if fields[2] ~= 'streaming' then -- ended under this claim: a repeated call
  return {'ok'}
end
if tonumber(fields[3]) < tonumber(ARGV[9]) then -- Redis lost tokens
  return {'gap', tonumber(fields[3])}
end
redis.call('HSET', KEYS[1], 'state', ARGV[3])
redis.call('HDEL', KEYS[1], 'sent') -- it is in the database now
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'error', ARGV[4])
end
redis.call('SPUBLISH', KEYS[4], ARGV[5])
redis.call('SREM', KEYS[3], ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[6], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - ARGV[7] * 1000)
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -1 - ARGV[8])
redis.call('EXPIRE', KEYS[6], ARGV[7])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('DEL', KEYS[7], KEYS[8])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return {'ok'}
