-- The order in which the jobs of a waiting room come, for the one consumer that reports it.
-- KEYS: owners, waiting, users, tenants, turns, reporter
-- ARGV: consumer, milliseconds for which it stays the reporter, jobs to list at most, JSON {tenant: [weight, maximum]},
--   JSON {user: weight}
-- Returns {waiting jobs, tenants with waiting jobs, {id, 'tenant|user|message|channel', ...}}, the list empty for others than
-- the reporter. It is what pick.lua does if no job comes or ends, and no maximum holds: who is at it keeps the turn.
local owners, waiting, users, tenants, turns, reporter = unpack(KEYS)
local most, shares, weights = tonumber(ARGV[3]), cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local BLOCKED = 4503599627370496 -- as in pick.lua
local PAGE = 8

-- Reads members with a prefix one by one; `last` is behind any character that follows it.
local function pages(key, prefix, last)
  local page, at, offset = {}, 1, 0
  return function()
    if at > #page and offset >= 0 then
      page = redis.call('ZRANGE', key, '[' .. prefix, '(' .. prefix .. last, 'BYLEX', 'LIMIT', offset, PAGE)
      at, offset = 1, #page == PAGE and offset + PAGE or -1
    end
    at = at + 1
    return page[at - 1]
  end
end

-- The users of a tenant in their turns, those at their maximum among them; each is {turn, user, jobs, first job} with its
-- weight, and the credit that is left of its turn.
local function users_of(tenant)
  local heads, skip = {}, #tenant + 3
  local able, full = pages(users, tenant .. '|0', '}'), pages(users, tenant .. '|1', '}')
  local function read(place)
    return place and {string.match(string.sub(place, skip), '^(%d+)|(.*)$')}
  end
  heads[1], heads[2] = read(able()), read(full())
  return function()
    local from = (not heads[2] or heads[1] and heads[1][1] < heads[2][1]) and 1 or 2
    local found = heads[from]
    if found then
      heads[from] = read((from == 1 and able or full)())
      local name = tenant .. '|' .. found[2]
      found[3] = pages(waiting, name .. '|', '}')
      found[4] = found[3]()
      found.weight = weights[string.match(found[2], ':(.*)$') or ''] or 1
      found.credit = found.weight > 1 and tonumber(redis.call('HGET', turns, 'w' .. name) or 0) or 0
    end
    return found
  end
end

local function ring()
  local found = {}
  local function add(flat)
    for at = 1, #flat, 2 do
      found[#found + 1] = {name = flat[at], turn = tonumber(flat[at + 1]) % BLOCKED}
    end
  end
  add(redis.call('ZRANGE', tenants, 0, BLOCKED - 1, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES'))
  add(redis.call('ZRANGE', tenants, BLOCKED, '+inf', 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES'))
  table.sort(found, function(a, b) return a.turn < b.turn end)
  local fields = {}
  for at = 1, math.min(#found, most) do
    local tenant = found[at]
    tenant.fresh, tenant.again, tenant.from = users_of(tenant.name), {}, 1
    fields[at] = 'c' .. tenant.name
  end
  for at, credit in ipairs(#fields > 0 and redis.call('HMGET', turns, unpack(fields)) or {}) do
    found[at].credit = tonumber(credit or 0)
  end
  return {unpack(found, 1, #fields)}
end

-- The next job of a tenant; its user goes behind the tenant's others at the end of its turn.
local function next_job(tenant)
  local user = tenant.current or tenant.fresh()
  if not user then
    user, tenant.from = tenant.again[tenant.from], tenant.from + 1
  end
  if not user then
    return
  end
  local job = user[4]
  user[4] = user[3]()
  user.credit = (user.credit < 1 and user.credit + user.weight or user.credit) - 1
  tenant.current = user[4] and user.credit >= 1 and user or nil
  if user[4] and not tenant.current then
    tenant.again[#tenant.again + 1] = user
  end
  return job
end

local function id_of(member)
  local ms, sequence = string.match(member, '0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. sequence
end

local function order()
  local ids, round = {}, ring()
  while #round > 0 do
    local after = {}
    for _, tenant in ipairs(round) do
      local weight = (shares[tenant.name] or {1})[1]
      local credit, job = tenant.credit >= 1 and tenant.credit or tenant.credit + weight, nil
      repeat
        job = next_job(tenant)
        if job then
          ids[#ids + 1], credit = id_of(job), credit - 1
        end
      until not job or credit < 1 or #ids >= most
      if #ids >= most then
        return ids
      end
      tenant.credit = credit
      if job then
        after[#after + 1] = tenant
      end
    end
    round = after
  end
  return ids
end

local counts = {redis.call('ZCARD', waiting), redis.call('ZCARD', tenants)}
local holder = redis.call('GET', reporter)
if holder and holder ~= ARGV[1] then
  return {counts[1], counts[2], {}}
end
redis.call('SET', reporter, ARGV[1], 'PX', ARGV[2])
local ids, listed = order(), {}
for at, owner in ipairs(#ids > 0 and redis.call('HMGET', owners, unpack(ids)) or {}) do
  if owner then
    listed[#listed + 1], listed[#listed + 2] = ids[at], owner
  end
end
return {counts[1], counts[2], listed}
