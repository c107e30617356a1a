-- Add a subscription, and on a presence channel its user, whose first connection is announced to the others.
-- KEYS: subscriptions, users, members, bus channel, held departures
-- ARGV: socket id, node id, user id or '', member, how many users may be there, envelope of member_added,
-- how many subscriptions may be there or 0, '1' if it may have been sent before
-- Answers {'ok', subscriptions, first of the channel, first of the user, members} or {'full'}. A first is 2 when
-- it undoes a departure that is held back. What was sent before, and whose answer was lost, is answered alike.
local function roster()
  return ARGV[3] ~= '' and redis.call('HVALS', KEYS[3]) or {}
end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  local node, first, first_of_user = string.match(redis.call('HGET', KEYS[1], ARGV[1]), '^(.*):(%d)(%d)$')
  local mine = ARGV[8] == '1' and node == ARGV[2]
  local firsts = mine and {tonumber(first), tonumber(first_of_user)} or {0, 0}
  return {'ok', redis.call('HLEN', KEYS[1]), firsts[1], firsts[2], roster()}
end
local count = redis.call('HLEN', KEYS[1])
local limit = tonumber(ARGV[7])
if limit > 0 and count > limit then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return {'full'}
end
local first_of_user = 0
if ARGV[3] ~= '' and redis.call('HINCRBY', KEYS[2], ARGV[3], 1) == 1 then
  if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[5]) then
    redis.call('HDEL', KEYS[2], ARGV[3])
    redis.call('HDEL', KEYS[1], ARGV[1])
    return {'full'}
  end
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  redis.call('SPUBLISH', KEYS[4], ARGV[6])
  first_of_user = 1 + redis.call('HDEL', KEYS[5], 'u' .. ARGV[3])
end
local first = count == 1 and 1 + redis.call('HDEL', KEYS[5], 'c') or 0
if first + first_of_user > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. first .. first_of_user)
end
return {'ok', count, first, first_of_user, roster()}
