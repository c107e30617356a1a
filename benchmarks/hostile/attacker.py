"""The process of one attack: ``python -m legato.benchmarks.hostile.attacker``.

Reads an :class:`.Order` from standard input, says that it is ready, begins with the next line, and says the
:class:`.Outcome`. Its connections stay open until standard input ends.
"""

from __future__ import annotations

import os
import sys

import msgspec

from .arena import Arena, Order
from .catalogue import ATTACKS

NICE = 5
"""Observers have the cores first: they are to see what the server does, not what this process takes."""


def main() -> int:
    """Carry the order out."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
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
