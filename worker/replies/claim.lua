-- Claim a message: from now on only this claim can write to it.
-- KEYS: message, log, active
-- ARGV: claim, tries, user as JSON, message id, id of the final marker, ticket; its conversation or '', what was
--   sent there
-- Returns {verdict, attempt, next, value of the final marker or '', usage so far or '', 1 if it was parked} or
-- {'fenced'}.
local fields = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'claim', 'next', 'cancel', 'usage', 'ticket',
  'resumed')
local state, claim, cancel, usage = fields[1], fields[3], fields[5], fields[6] or ''
local attempt = tonumber(fields[2] or 0)
local next = tonumber(fields[4] or 0)

if state == 'complete' or state == 'failed' or state == 'cancelled' then
  return {'finished', attempt, next, '', usage, 0}
end
if fields[7] and fields[7] > ARGV[6] then -- the job was delivered again since, and its new owner has claimed it
  return {'fenced'}
end

if claim ~= ARGV[1] then -- otherwise a repeated call, not a new attempt
  attempt = attempt + 1
end
local resumed = fields[8] == ARGV[1] -- a repeated call
if state == 'waiting' then
  resumed = true
  redis.call('HSET', KEYS[1], 'resumed', ARGV[1])
end
redis.call('HSET', KEYS[1], 'state', 'streaming', 'attempt', attempt, 'claim', ARGV[1],
  'next', next, 'user', ARGV[3], 'ticket', ARGV[6])
if ARGV[7] ~= '' then -- not there yet if another program has queued the job
  redis.call('HSETNX', KEYS[1], 'conversation', ARGV[7])
  redis.call('HSETNX', KEYS[1], 'sent', ARGV[8])
end
redis.call('PERSIST', KEYS[1]) -- the broadcaster lets a queued message expire, but a running one must not
redis.call('SADD', KEYS[3], ARGV[4])

local marker = redis.call('XRANGE', KEYS[2], ARGV[5], ARGV[5])[1]
local verdict = 'run'
if cancel == '1' then
  verdict = 'cancelled'
elseif attempt > tonumber(ARGV[2]) then
  verdict = 'exhausted'
end
return {verdict, attempt, next, marker and marker[2][2] or '', usage, resumed and 1 or 0}
