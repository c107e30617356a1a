-- Remove a subscription, and on a presence channel its user, whose last connection is announced to the others.
-- KEYS: subscriptions, users, members, bus channel
-- ARGV: socket id, user id or '', envelope of member_removed
-- Answers {subscriptions, last of the channel, last of the user}. Once per subscription: a repeated call does nothing.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return {redis.call('HLEN', KEYS[1]), 0, 0}
end
local last_of_user = 0
if ARGV[2] ~= '' and redis.call('HINCRBY', KEYS[2], ARGV[2], -1) <= 0 then
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('SPUBLISH', KEYS[4], ARGV[3])
  last_of_user = 1
end
local count = redis.call('HLEN', KEYS[1])
return {count, count == 0 and 1 or 0, last_of_user}
