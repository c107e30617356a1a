-- Renew a node's lease, unless the others have taken the node for dead.
-- KEYS: lease
-- ARGV: the node's state, milliseconds, the mark of a dead node
-- Answers 1, 2 when there was no lease and nobody has noticed, or 0 when the node is taken for dead.
local state = redis.call('GET', KEYS[1])
if state == ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return state and 1 or 2
