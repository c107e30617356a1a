-- Keep the last event of a cache channel, under a version that grows with each.
-- KEYS: cache
-- ARGV: event, seconds
-- Answers the version. The value is its 16 digits and the event.
local time = redis.call('TIME')
local version = time[1] * 1000000 + time[2]
local before = tonumber(redis.call('GETRANGE', KEYS[1], 0, 15))
if before and before >= version then
  version = before + 1
end
redis.call('SET', KEYS[1], string.format('%016.0f', version) .. ARGV[1], 'EX', ARGV[2])
return version
