-- Remove a subscription, and on a presence channel its user, whose last connection is announced to the others.
-- KEYS: subscriptions, users, members, bus channel, held departures; where this call's answer is kept, if webhooks
-- depend on it
-- ARGV: socket id, user id or '', envelope of member_removed, who holds webhooks back or '', '1' after a disconnect,
-- who held them back before or '', for how many seconds a hold is kept, for how many an answer,
-- '1' if it may have been sent before
-- Answers {subscriptions, last of the channel, last of the user}. Once per subscription: a repeated call does nothing,
-- but to take over what is held back by who is named before, or by the caller itself, whose answer was lost.
-- The last of a channel is 2 when its webhook is held back: after a disconnect, or behind a member's. A last that is
-- not, and is to be told at once, is kept for the call that comes again for its answer.
local function takes_over(field)
  local holder = ARGV[4] ~= '' and redis.call('HGET', KEYS[5], field)
  if not holder or not (holder == ARGV[6] or (ARGV[9] == '1' and holder == ARGV[4])) then
    return false
  end
  redis.call('HSET', KEYS[5], field, ARGV[4])
  redis.call('EXPIRE', KEYS[5], ARGV[7])
  return true
end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  local user = ARGV[2] ~= '' and ARGV[5] == '1' and takes_over('u' .. ARGV[2])
  local channel = takes_over('c')
  local kept = ARGV[9] == '1' and KEYS[6] and redis.call('GET', KEYS[6]) or '00'
  local last, last_of_user = string.match(kept, '^(%d)(%d)$')
  return {redis.call('HLEN', KEYS[1]), channel and 2 or tonumber(last), user and 1 or tonumber(last_of_user)}
end
local last_of_user = 0
if ARGV[2] ~= '' and redis.call('HINCRBY', KEYS[2], ARGV[2], -1) <= 0 then
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('SPUBLISH', KEYS[4], ARGV[3])
  last_of_user = 1
end
local count = redis.call('HLEN', KEYS[1])
local last = count == 0 and 1 or 0
local at_once = ARGV[5] ~= '1' and last_of_user or 0
if ARGV[4] ~= '' then
  if last_of_user == 1 and ARGV[5] == '1' then
    redis.call('HSET', KEYS[5], 'u' .. ARGV[2], ARGV[4])
  end
  if last == 1 and (ARGV[5] == '1' or redis.call('EXISTS', KEYS[5]) == 1) then
    redis.call('HSET', KEYS[5], 'c', ARGV[4])
    last = 2
  end
  redis.call('EXPIRE', KEYS[5], ARGV[7])  -- past any hold-back, and any time it takes to see that its node is dead
  if KEYS[6] and last % 2 + at_once > 0 then
    redis.call('SET', KEYS[6], last % 2 .. at_once, 'EX', ARGV[8])
  end
end
return {count, last, last_of_user}
