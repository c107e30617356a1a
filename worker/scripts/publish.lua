-- Publish an event of a message that is not part of its log.
-- KEYS: message, bus channel
-- ARGV: claim, envelope
-- Answers {'ok'} or {'fenced'}.
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then
  return {'fenced'}
end
redis.call('SPUBLISH', KEYS[2], ARGV[2])
return {'ok'}
