-- Give a claim back while calls wait for an approval. It does not count as a try.
-- KEYS: message, approvals
-- ARGV: claim, queue of the parked job, entries that the log must have
-- Returns {'ok'}, {'decided'} if no call waits, {'fenced'} or {'gap', next}.
-- The hash keeps the claim with a mark: no write is accepted under it, and a repeated call is recognised.
local parked = 'parked ' .. ARGV[1]
local fields = redis.call('HMGET', KEYS[1], 'claim', 'next', 'state', 'cancel')
if fields[1] == parked then
  return {'ok'}
end
if fields[1] ~= ARGV[1] or fields[3] ~= 'streaming' then
  return {'fenced'}
end
if tonumber(fields[2]) < tonumber(ARGV[3]) then -- Redis lost entries that readers have seen
  return {'gap', tonumber(fields[2])}
end
local waiting = false
for _, decision in ipairs(redis.call('HVALS', KEYS[2])) do
  waiting = waiting or decision == ''
end
if not waiting or fields[4] == '1' then
  return {'decided'}
end
redis.call('HINCRBY', KEYS[1], 'attempt', -1)
redis.call('HSET', KEYS[1], 'state', 'waiting', 'queue', ARGV[2], 'claim', parked)
return {'ok'}
