-- Undo a claim, as if the message had never been claimed. Only a message without tokens.
-- KEYS: message, active
-- ARGV: claim, message id, tokens that the log must have
-- Returns {'ok'}, {'fenced'}, {'begun'} or {'gap', next}.
-- The hash keeps the claim with a mark: no write is accepted under it, and a repeated call is recognised.
local released = 'released ' .. ARGV[1]
local fields = redis.call('HMGET', KEYS[1], 'claim', 'next', 'state')
if fields[1] == released then
  return {'ok'}
end
if fields[1] ~= ARGV[1] or fields[3] ~= 'streaming' then
  return {'fenced'}
end
if tonumber(fields[2]) < tonumber(ARGV[3]) then -- Redis lost tokens that readers have seen
  return {'gap', tonumber(fields[2])}
end
if tonumber(fields[2]) > 0 then
  return {'begun'}
end
redis.call('HINCRBY', KEYS[1], 'attempt', -1)
redis.call('HSET', KEYS[1], 'state', 'queued', 'claim', released)
redis.call('SREM', KEYS[2], ARGV[2])
return {'ok'}
