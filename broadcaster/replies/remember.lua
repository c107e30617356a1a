-- Claim an idempotency key for a message.
-- KEYS: idempotency key
-- ARGV: digest of the request, message id, lifetime of the key in seconds
-- Returns {1, id}: this request begins the message; {0, id}: an earlier one has begun it; {-1}: the key was used with
-- another request.
-- A request that was refused (refuse.lua) may be sent again, and keeps its id: another repetition of it, that was on
-- its way meanwhile, may have queued the message.
local known = redis.call('GET', KEYS[1])
local digest, id, refused
if known then
  digest, id, refused = string.match(known, '^([^:]*):([^:]*)(.*)$')
end
if not known or (refused ~= '' and digest ~= ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'EX', ARGV[3])
  return {1, ARGV[2]}
end
if digest ~= ARGV[1] then
  return {-1}
end
if refused == '' then
  return {0, id}
end
redis.call('SET', KEYS[1], digest .. ':' .. id, 'EX', ARGV[3])
return {1, id}
