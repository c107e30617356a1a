-- Take a message over: from now on only writes under this claim count.
-- KEYS: message, log, active
-- ARGV: claim, tries, user as JSON, message id, id of the final marker, ticket
-- Answers {verdict, attempt, next, value of the final marker or '', what was used up to now or ''} or {'fenced'}.
local fields = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'claim', 'next', 'cancel', 'usage', 'ticket')
local state, claim, cancel, usage = fields[1], fields[3], fields[5], fields[6] or ''
local attempt = tonumber(fields[2] or 0)
local next = tonumber(fields[4] or 0)

if state == 'complete' or state == 'failed' or state == 'cancelled' then
  return {'finished', attempt, next, '', usage}
end
if fields[7] and fields[7] > ARGV[6] then -- who got the job later is at work: this worker slept meanwhile
  return {'fenced'}
end

if claim ~= ARGV[1] then -- the same claim again is a repeated call, not a new try
  attempt = attempt + 1
end
redis.call('HSET', KEYS[1], 'state', 'streaming', 'attempt', attempt, 'claim', ARGV[1],
  'next', next, 'user', ARGV[3], 'ticket', ARGV[6])
redis.call('PERSIST', KEYS[1]) -- whoever made the hash may have bounded the wait, but not the reply
redis.call('SADD', KEYS[3], ARGV[4])

local marker = redis.call('XRANGE', KEYS[2], ARGV[5], ARGV[5])[1]
local verdict = 'run'
if cancel == '1' then
  verdict = 'cancelled'
elseif attempt > tonumber(ARGV[2]) then
  verdict = 'exhausted'
end
return {verdict, attempt, next, marker and marker[2][2] or '', usage}
