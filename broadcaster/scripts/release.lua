-- End the hold-back of a departure's webhook.
-- KEYS: held departures
-- ARGV: 'c', or 'u' and the user id; who held it back
-- Answers 1 if it stands: nobody has come back, and nobody else holds it back since.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
