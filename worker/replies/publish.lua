-- Publish an event of a message without logging it, and store the usage of its model.
-- KEYS: message, bus channel
-- ARGV: claim, envelope or '', usage as JSON or ''
-- Returns {'ok'} or {'fenced'}.
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then
  return {'fenced'}
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'usage', ARGV[3])
end
if ARGV[2] ~= '' then
  redis.call('SPUBLISH', KEYS[2], ARGV[2])
end
return {'ok'}
