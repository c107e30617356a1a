-- Log and publish consecutive tokens. Each is logged first, so that whoever sees a gap can read it from the log.
-- KEYS: message, log, bus channel
-- ARGV: claim, index of the first token, envelope to publish before it or '', usage so far as JSON or '', final marker
-- behind the last or '', how the reply began as JSON or '', field, then (log entry id, text, envelope) of each token;
-- with a marker its id and its field
-- Returns {'ok', next, cancel requested: 0 or 1}, {'fenced'} or {'gap', next}.
local fields = redis.call('HMGET', KEYS[1], 'claim', 'next', 'cancel', 'state')
if fields[1] ~= ARGV[1] or fields[4] ~= 'streaming' then
  return {'fenced'}
end
local next, index, last = tonumber(fields[2]), tonumber(ARGV[2]), #ARGV
if index > next then
  return {'gap', next}
end
if ARGV[3] ~= '' and index == next then -- otherwise it was published by an earlier call
  redis.call('SPUBLISH', KEYS[3], ARGV[3])
end
if ARGV[6] ~= '' then
  redis.call('HSETNX', KEYS[1], 'begun', ARGV[6])
end
if ARGV[5] ~= '' then
  last = last - 2
end
for at = 8, last, 3 do
  if index == next then -- otherwise the token is logged already, by an earlier call
    redis.call('XADD', KEYS[2], ARGV[at], ARGV[7], ARGV[at + 1])
    redis.call('SPUBLISH', KEYS[3], ARGV[at + 2])
    next = next + 1
  end
  index = index + 1
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'next', next, 'usage', ARGV[4])
else
  redis.call('HSET', KEYS[1], 'next', next)
end
if ARGV[5] ~= '' and #redis.call('XRANGE', KEYS[2], ARGV[last + 1], ARGV[last + 1]) == 0 then
  redis.call('XADD', KEYS[2], ARGV[last + 1], ARGV[last + 2], ARGV[5])
end
return {'ok', next, fields[3] == '1' and 1 or 0}
