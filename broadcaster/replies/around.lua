-- The replies on a channel.
-- KEYS: active, ended
-- Returns {ids of messages that stream, {id of a recently ended message, milliseconds since then, ...}}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for at = 2, #ended, 2 do
  ended[at] = now - tonumber(ended[at])
end
return {redis.call('SMEMBERS', KEYS[1]), ended}
