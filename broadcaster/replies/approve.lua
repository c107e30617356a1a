-- Store the decision on a call that needs an approval. The first decision stands.
-- KEYS: message, approvals
-- ARGV: call, decision as JSON up to the time, the rest of it, queue in which the caller has hurried the job or ''
-- Returns {verdict, queue}: 'decided', also for the same decision again; 'conflict': it was decided otherwise;
--   'unknown': no such message or call; 'ended': the message has ended; 'hurry': nothing is stored, because the job
--   is parked in this queue and the caller has to hurry it first. With 'decided', the queue is '' unless the job is
--   parked there and has to be resumed, because no call waits any more.
local fields = redis.call('HMGET', KEYS[1], 'state', 'queue')
local state = fields[1]
if not state then
  return {'unknown', ''}
end
if state == 'complete' or state == 'failed' or state == 'cancelled' then
  return {'ended', ''}
end
local known = redis.call('HGET', KEYS[2], ARGV[1])
if not known then
  return {'unknown', ''}
end
if known ~= '' and string.sub(known, 1, #ARGV[2]) ~= ARGV[2] then
  return {'conflict', ''}
end
local undecided = 0
for _, decision in ipairs(redis.call('HVALS', KEYS[2])) do
  if decision == '' then
    undecided = undecided + 1
  end
end
if known == '' then
  undecided = undecided - 1
end
local queue = ''
if state == 'waiting' and undecided == 0 then
  queue = fields[2] or ''
end
if known == '' then
  if queue ~= '' and queue ~= ARGV[4] then
    return {'hurry', queue}
  end
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ARGV[3])
end
return {'decided', queue}
