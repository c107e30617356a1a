-- Record that the provider reported overload: nobody sends a request until the pause is over.
-- KEYS: back-off
-- ARGV: milliseconds that the provider asked for, or -1, milliseconds of the first pause, of the longest, code
-- Returns {milliseconds of the pause}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fields = redis.call('HMGET', KEYS[1], 'until', 'strikes')
local over, strikes = tonumber(fields[1] or 0), tonumber(fields[2] or 0)
if now >= over then -- otherwise the request was sent before the pause began: the same overload
  strikes = strikes + 1
end
local pause = tonumber(ARGV[1])
if pause < 0 then
  pause = now >= over and math.min(ARGV[2] * 2 ^ math.min(strikes - 1, 20), tonumber(ARGV[3])) or 0
end
over = math.max(over, now + pause)
redis.call('HSET', KEYS[1], 'until', over, 'probe', 0, 'strikes', strikes, 'code', ARGV[4])
redis.call('PEXPIRE', KEYS[1], over - now + 60000)
return {over - now}
