-- What goes on on a channel.
-- KEYS: active, ended
-- Answers {ids of the messages that stream now, {id of one that has ended of late, milliseconds ago, ...}}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for at = 2, #ended, 2 do
  ended[at] = now - tonumber(ended[at])
end
return {redis.call('SMEMBERS', KEYS[1]), ended}
