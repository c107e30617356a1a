-- Ask whether a request may be sent to the provider now.
-- KEYS: back-off
-- ARGV: milliseconds between two probes
-- Returns {milliseconds until the next question, or 0, strikes, code of the overload or ''}. 0 and strikes: a probe.
local fields = redis.call('HMGET', KEYS[1], 'until', 'probe', 'strikes', 'code')
if not fields[1] then
  return {0, 0, ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local turn = math.max(tonumber(fields[1]), tonumber(fields[2]))
local strikes = tonumber(fields[3])
if now < turn then
  return {turn - now, strikes, fields[4]}
end
redis.call('HSET', KEYS[1], 'probe', now + ARGV[1])
return {0, strikes, fields[4]}
