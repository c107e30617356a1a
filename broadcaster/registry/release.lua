-- End the hold-back of a departure's webhook.
-- KEYS: held departures, where this call's answer is kept
-- ARGV: 'c', or 'u' and the user id; who held it back; for how many seconds an answer is kept;
-- '1' if it may have been sent before
-- Answers 1 if it stands: nobody has come back, and nobody else holds it back since. What was sent before, and whose
-- answer was lost, is answered alike.
if ARGV[4] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then
  return 1
end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[2], '1', 'EX', ARGV[3])
return redis.call('HDEL', KEYS[1], ARGV[1])
