"""The process of one attack: ``python -m legato.benchmarks.hostile.attacker``.

It reads an :class:`.arena.AttackOrder` from standard input, reports that it is ready, starts at the next
line, and writes the :class:`.arena.AttackOutcome`. Its connections stay open until standard input ends.
"""

from __future__ import annotations

import os
import sys

import msgspec

from .arena import Arena, AttackOrder
from .catalogue import ATTACKS

NICE = 5
"""Lower priority than the observers, so that they measure the server and not this process."""


def main() -> int:
    """Carry out the order."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=AttackOrder)
    os.nice(NICE)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.buffer.readline()
    arena = Arena(order)
    arena.repeat(ATTACKS[order.attack].run)
    sys.stdout.write(msgspec.json.encode(arena.outcome).decode() + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    arena.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
