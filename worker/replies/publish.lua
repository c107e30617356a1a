-- Publish an event of a message without logging it, and store the usage of its model, and how the reply began.
-- KEYS: message, bus channel
-- ARGV: claim, envelope or '', usage as JSON or '', the first beginning as JSON or ''
-- Returns {'ok', the stored beginning} (the second only with one in ARGV) or {'fenced'}.
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then
  return {'fenced'}
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'usage', ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('HSETNX', KEYS[1], 'begun', ARGV[4])
end
if ARGV[2] ~= '' then
  redis.call('SPUBLISH', KEYS[2], ARGV[2])
end
if ARGV[4] ~= '' then
  return {'ok', redis.call('HGET', KEYS[1], 'begun')}
end
return {'ok'}
