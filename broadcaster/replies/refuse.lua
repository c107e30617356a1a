-- Record that the request with an idempotency key was refused.
-- KEYS: idempotency key
-- ARGV: digest of the request, message id
local value = ARGV[1] .. ':' .. ARGV[2]
if redis.call('GET', KEYS[1]) == value then
  redis.call('SET', KEYS[1], value .. ':refused', 'KEEPTTL')
end
