-- Add a subscription, and on a presence channel its user, whose first connection is announced to the others.
-- KEYS: subscriptions, users, members, bus channel, held departures
-- ARGV: socket id, node id, user id or '', member, how many users may be there, envelope of member_added
-- Answers {'ok', subscriptions, first of the channel, first of the user, members} or {'full'}. A first is 2 when
-- it undoes a departure that is held back.
local added = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
local first_of_user = 0
if added == 1 and ARGV[3] ~= '' then
  if redis.call('HINCRBY', KEYS[2], ARGV[3], 1) == 1 then
    if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[5]) then
      redis.call('HDEL', KEYS[2], ARGV[3])
      redis.call('HDEL', KEYS[1], ARGV[1])
      return {'full'}
    end
    redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
    redis.call('SPUBLISH', KEYS[4], ARGV[6])
    first_of_user = 1 + redis.call('HDEL', KEYS[5], 'u' .. ARGV[3])
  end
end
local count = redis.call('HLEN', KEYS[1])
local first = (added == 1 and count == 1) and 1 + redis.call('HDEL', KEYS[5], 'c') or 0
local members = ARGV[3] ~= '' and redis.call('HVALS', KEYS[3]) or {}
return {'ok', count, first, first_of_user, members}
