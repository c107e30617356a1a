-- Record that the provider accepted a probe: take back one strike, and let the next probe go at once.
-- KEYS: back-off
-- Returns {strikes left}.
local strikes = tonumber(redis.call('HGET', KEYS[1], 'strikes') or 0) - 1
if strikes <= 0 then
  redis.call('DEL', KEYS[1])
  return {0}
end
redis.call('HSET', KEYS[1], 'strikes', strikes, 'probe', 0)
return {strikes}
