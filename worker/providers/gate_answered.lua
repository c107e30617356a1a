-- A provider has answered again: one step back, and the next may ask at once.
-- KEYS: back-off
-- Answers {strikes left}.
local strikes = tonumber(redis.call('HGET', KEYS[1], 'strikes') or 0) - 1
if strikes <= 0 then
  redis.call('DEL', KEYS[1])
  return {0}
end
redis.call('HSET', KEYS[1], 'strikes', strikes, 'probe', 0)
return {strikes}
