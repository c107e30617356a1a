"""`legato worker` with the fence off: a build that is broken on purpose, for the auditor to catch.

Its append asks neither for the claim nor for the index: whoever calls it is believed. And it is not told that
its lease is lost, which would stop a zombie before it writes.
"""

import sys

from legato.deploy import cli
from legato.protocol.redis import scripts

APPEND = """
local next = redis.call('XLEN', KEYS[2])
local last = ARGV[5] == '' and #ARGV or #ARGV - 2
for at = 8, last, 3 do
  next = next + 1
  redis.call('XADD', KEYS[2], '1-' .. next, ARGV[7], ARGV[at + 1])
  redis.call('SPUBLISH', KEYS[3], ARGV[at + 2])
end
redis.call('HSET', KEYS[1], 'next', next)
if ARGV[5] ~= '' then
  redis.call('XADD', KEYS[2], ARGV[last + 1], ARGV[last + 2], ARGV[5])
end
return {'ok', next, redis.call('HGET', KEYS[1], 'cancel') == '1' and 1 or 0}
"""

BROKEN = {"append": APPEND, "renew": "return {}"}

right = scripts.load


def load(redis, package, name):
    """As `legato.protocol.redis.scripts.load`, but for two scripts."""
    return redis.register_script(BROKEN[name]) if name in BROKEN else right(redis, package, name)


if __name__ == "__main__":
    scripts.load = load
    sys.exit(cli.main(sys.argv[1:]))
