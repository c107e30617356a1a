"""Which slot of a Redis Cluster a command belongs to, and which node has it. Does no I/O.

See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

from legato.protocol.redis_url import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOTS: Final = 16_384

KEYLESS: Final = frozenset({"PING", "INFO", "TIME", "COMMAND", "CLUSTER", "CONFIG", "SCRIPT LOAD"})
"""Commands without a key, which any node may answer. Only those that Legato uses."""


class SlotsError(ValueError):
    """A node's answer to ``CLUSTER SLOTS`` is malformed, or has no slots."""


def slot_of(key: bytes) -> int:
    """The slot of a key or a sharded channel, from its hash tag (in the first braces) if it has one."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def key_of(command: Sequence[Any]) -> bytes | None:
    """The first key of a command; None if it has none.

    The other keys must be in the same slot, or the node refuses the command.

    :param command: as redis-py passes it: a name of two words, as ``XGROUP CREATE``, is one text.
    """
    name = str(command[0])
    if name in KEYLESS or len(command) == 1:
        return None
    position = 1
    if name in ("EVAL", "EVALSHA"):
        position = 3
    elif name == "XREADGROUP":
        words = [_bytes(word) for word in command]
        position = words.index(b"STREAMS") + 1
    return _bytes(command[position])


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


class SlotMap:
    """Which node has which slot, as far as is known.

    :ivar stale: the map may have changed since it was loaded.
    """

    def __init__(self) -> None:
        self._owners: list[Address | None] = [None] * SLOTS
        self._masters: list[Address] = []
        self._suspects: dict[Address, None] = {}
        self.stale = True

    @property
    def known(self) -> bool:
        """Whether the map has been loaded."""
        return bool(self._masters)

    @property
    def masters(self) -> list[Address]:
        """Every node that has a slot. Those that did not answer the last time come last."""
        return sorted(self._masters, key=self._suspects.__contains__)

    def owner(self, slot: int) -> Address | None:
        """The node that has a slot; None while none has it."""
        return self._owners[slot]

    def to_ask(self, seeds: Sequence[Address]) -> list[Address]:
        """The nodes to ask for the map, in this order: those that answered before come first."""
        everybody = dict.fromkeys((*self._masters, *seeds))
        return sorted(everybody, key=self._suspects.__contains__)

    def suspect(self, address: Address) -> None:
        """A node did not answer: it may have lost its slots."""
        self._suspects[address] = None
        self.stale = True

    def moved(self, slot: int, address: Address) -> None:
        """Apply a MOVED reply."""
        self._owners[slot] = address
        if address not in self._masters:
            self._masters.append(address)
        self.stale = True

    def learn(self, answer: Any, source: Address) -> None:
        """Load the map from an answer to ``CLUSTER SLOTS``.

        :param source: the node that gave it, which need not know its own name.
        :raises SlotsError: it is not such an answer, or no node has a slot.
        """
        owners: list[Address | None] = [None] * SLOTS
        try:
            for first, last, master, *_replicas in answer:
                name = master[0].decode() if master[0] else ""
                address = Address(source.host if name in ("", "?") else name, int(master[1]))
                for slot in range(int(first), int(last) + 1):
                    owners[slot] = address
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise SlotsError("it does not say who has which slot") from error
        masters = dict.fromkeys(owner for owner in owners if owner is not None)
        if not masters:
            raise SlotsError("it belongs to no Cluster yet: no node has any slot")
        self._owners, self._masters = owners, list(masters)
        self._suspects.pop(source, None)
        self.stale = None in owners  # a slot without an owner will get one soon
