-- Publish an event that belongs to no reply.
-- KEYS: bus channel
-- ARGV: envelope
-- Returns how many nodes received it.
return redis.call('SPUBLISH', KEYS[1], ARGV[1])
