-- Keep the waiting room of a queue in order, and claim the jobs whose turn it is.
-- KEYS: jobs, then of the waiting room: owners, waiting, users, tenants, claimed, turns
-- ARGV: group, consumer that stands for the waiting room, consumer, how many to claim, maximum of claimed jobs per user
--   and per tenant (0: none), JSON {tenant: [weight, maximum]} for those that have their own, JSON {user: weight} likewise,
--   number of ids, ids that may be gone, then (id, 'tenant|user|message|channel') of jobs that came
-- Returns {{{id, {field, value ...}} ...}, waiting jobs, tenants with waiting jobs}.
-- Deficit round robin over tenants, and over the users of each. A tenant or user at its maximum is moved
-- behind all others (BLOCKED, '1'), but keeps its turn. Whether a job waits or is claimed, the group of the stream
-- decides: an id that is not pending there is forgotten. So the script may be sent twice, but for what it claims.
local jobs, owners, waiting, users, tenants, claimed, turns = unpack(KEYS)
local group, room, consumer = ARGV[1], ARGV[2], ARGV[3]
local most_of_user, most_of_tenant = tonumber(ARGV[5]), tonumber(ARGV[6])
local shares, weights = cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local BLOCKED = 4503599627370496 -- 2^52: scores up to twice as much are exact
local GHOSTS = 100 -- ids that one call forgets at most

local function share(tenant)
  local own = shares[tenant] or {1, most_of_tenant}
  return own[1], own[2]
end

-- The jobs that a user, 'application:user', gets when it has its turn.
local function weight_of(user)
  return weights[string.match(user, ':(.*)$') or ''] or 1
end

local function bounds(prefix)
  return '[' .. prefix .. '|', '(' .. prefix .. '}' -- '}' follows '|'
end

local function first(key, prefix)
  local from, to = bounds(prefix)
  return redis.call('ZRANGE', key, from, to, 'BYLEX', 'LIMIT', 0, 1)[1]
end

local function is_full(prefix, most)
  if most == 0 then
    return false
  end
  local from, to = bounds(prefix)
  return redis.call('ZLEXCOUNT', claimed, from, to) >= most
end

local function next_turn()
  return redis.call('HINCRBY', turns, '#', 1)
end

local function padded(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #sequence) .. sequence
end

local function consumer_of(id)
  local pending = redis.call('XPENDING', jobs, group, id, id, 1)[1]
  return pending and pending[2]
end

-- Give a user its place among those of its tenant: at its turn, at a new one, or none.
local function place_user(tenant, user, anew)
  local name = tenant .. '|' .. user
  local field, old, new = 'u' .. name, redis.call('HGET', turns, 'u' .. name), false
  if first(waiting, name) then
    local turn = old and not anew and string.sub(old, 2) or string.format('%016.0f', next_turn())
    new = (is_full(name, most_of_user) and '1' or '0') .. turn
  end
  if old == new then
    return
  end
  if old then
    redis.call('ZREM', users, tenant .. '|' .. old .. '|' .. user)
  end
  if new then
    redis.call('ZADD', users, 0, tenant .. '|' .. new .. '|' .. user)
    redis.call('HSET', turns, field, new)
  else
    redis.call('HDEL', turns, field, 'w' .. name)
  end
end

-- The same for a tenant, after its users.
local function place_tenant(tenant, anew)
  local head = first(users, tenant)
  if not head then
    redis.call('ZREM', tenants, tenant)
    redis.call('HDEL', turns, 'c' .. tenant)
    return
  end
  local old = redis.call('ZSCORE', tenants, tenant)
  local turn = old and not anew and tonumber(old) % BLOCKED or next_turn()
  local _, most = share(tenant)
  if string.sub(head, #tenant + 2, #tenant + 2) == '1' or is_full(tenant, most) then
    turn = turn + BLOCKED
  end
  redis.call('ZADD', tenants, string.format('%.0f', turn), tenant)
end

local function forget(id, owner)
  local tenant, user = string.match(owner, '^(.-)|(.-)|')
  local member = tenant .. '|' .. user .. '|' .. padded(id)
  redis.call('HDEL', owners, id)
  redis.call('ZREM', waiting, member)
  redis.call('ZREM', claimed, member)
  place_user(tenant, user)
  place_tenant(tenant)
end

local function arrive(id, owner)
  if consumer_of(id) ~= room then
    return
  end
  local tenant, user = string.match(owner, '^(.-)|(.-)|')
  redis.call('HSET', owners, id, owner)
  redis.call('ZADD', waiting, 0, tenant .. '|' .. user .. '|' .. padded(id))
  place_user(tenant, user)
  place_tenant(tenant)
end

-- The tenant whose turn it is, and the user whose turn it is there.
local function whose_turn()
  local head = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
  if head[1] and tonumber(head[2]) < BLOCKED then
    local place = first(users, head[1])
    return head[1], place and string.match(string.sub(place, #head[1] + 2), '^%d+|(.*)$')
  end
end

local function id_of(member)
  local ms, sequence = string.match(member, '0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. sequence
end

local function claim(id)
  if consumer_of(id) ~= room then
    return
  end
  return redis.call('XCLAIM', jobs, group, consumer, 0, id, 'RETRYCOUNT', 1)[1] -- none if it was deleted
end

local many = tonumber(ARGV[9])
for at = 10, 9 + many do
  local owner = redis.call('HGET', owners, ARGV[at])
  if owner and not consumer_of(ARGV[at]) then
    forget(ARGV[at], owner)
  end
end
for at = 10 + many, #ARGV, 2 do
  arrive(ARGV[at], ARGV[at + 1])
end

-- Take one job from the credit of a turn, which is as large as the weight when it begins. Answers whether that was all.
local function spend(field, weight)
  local credit = tonumber(redis.call('HGET', turns, field) or 0)
  credit = (credit < 1 and credit + weight or credit) - 1
  redis.call('HSET', turns, field, credit)
  return credit < 1
end

local function serve(tenant, user, member)
  redis.call('ZREM', waiting, member)
  redis.call('ZADD', claimed, 0, member)
  local weight = weight_of(user)
  place_user(tenant, user, weight == 1 or spend('w' .. tenant .. '|' .. user, weight))
  place_tenant(tenant, spend('c' .. tenant, (share(tenant))))
end

local entries, left, ghosts = {}, tonumber(ARGV[4]), 0
while left > 0 and ghosts < GHOSTS do
  local tenant, user = whose_turn()
  if not tenant then
    break
  end
  local member = user and first(waiting, tenant .. '|' .. user)
  local entry = member and claim(id_of(member))
  if entry then
    serve(tenant, user, member)
    entries[#entries + 1], left = entry, left - 1
  else
    ghosts = ghosts + 1
    if member then
      forget(id_of(member), member)
    else -- somebody has deleted some of these keys
      place_user(tenant, user or '')
      place_tenant(tenant)
    end
  end
end
return {entries, redis.call('ZCARD', waiting), redis.call('ZCARD', tenants)}
