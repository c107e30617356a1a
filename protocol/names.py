"""The Redis names of one installation: those of :mod:`.wire` with its prefix and database number.

Several installations may share a Redis. Databases separate keys but not pub/sub, so the bus channels carry
the database number, unless it is 0. The prefix precedes every key and channel. It has no brace, so the hash
tags are those of :mod:`.wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

from . import wire

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")


def _prefixed(name: Callable[P, str]) -> Callable[Concatenate[Names, P], str]:
    def prefixed(names: Names, /, *args: P.args, **kwargs: P.kwargs) -> str:
        return names.prefix + name(*args, **kwargs)

    prefixed.__doc__ = name.__doc__
    return prefixed


class Names:
    """Each method and attribute is the function or constant of the same name in :mod:`.wire`, prefixed."""

    __slots__ = ("_database", "nodes_key", "paused_key", "prefix", "queues_key", "workers_key")

    def __init__(self, prefix: str = "", database: int = 0) -> None:
        self.prefix: Final = prefix
        self._database: Final = database
        self.queues_key: Final = prefix + wire.QUEUES_KEY
        self.workers_key: Final = prefix + wire.WORKERS_KEY
        self.paused_key: Final = prefix + wire.PAUSED_KEY
        self.nodes_key: Final = prefix + wire.NODES_KEY

    jobs_key = _prefixed(wire.jobs_key)
    queued_mark = _prefixed(wire.queued_mark)
    dead_key = _prefixed(wire.dead_key)
    fair_key = _prefixed(wire.fair_key)
    worker_key = _prefixed(wire.worker_key)
    order_key = _prefixed(wire.order_key)
    message_key = _prefixed(wire.message_key)
    log_key = _prefixed(wire.log_key)
    steps_key = _prefixed(wire.steps_key)
    approvals_key = _prefixed(wire.approvals_key)
    parked_key = _prefixed(wire.parked_key)
    waiting_key = _prefixed(wire.waiting_key)
    active_key = _prefixed(wire.active_key)
    open_key = _prefixed(wire.open_key)
    ended_key = _prefixed(wire.ended_key)
    subscriptions_key = _prefixed(wire.subscriptions_key)
    users_key = _prefixed(wire.users_key)
    members_key = _prefixed(wire.members_key)
    held_key = _prefixed(wire.held_key)
    answer_key = _prefixed(wire.answer_key)
    cache_key = _prefixed(wire.cache_key)
    occupied_key = _prefixed(wire.occupied_key)
    lease_key = _prefixed(wire.lease_key)
    entries_key = _prefixed(wire.entries_key)
    connections_key = _prefixed(wire.connections_key)
    idempotency_key = _prefixed(wire.idempotency_key)
    door_chat_key = _prefixed(wire.door_chat_key)
    door_read_key = _prefixed(wire.door_read_key)
    backoff_key = _prefixed(wire.backoff_key)

    def bus_channel(self, app_id: str, channel: str) -> str:
        """See :func:`legato.protocol.wire.bus_channel`."""
        return self.prefix + wire.bus_channel(app_id, channel, self._database)

    def cancel_flags(self, message_id: str) -> tuple[str, str]:
        """See :func:`legato.protocol.wire.cancel_flags`."""
        tagged, plain = wire.cancel_flags(message_id)
        return self.prefix + tagged, self.prefix + plain
