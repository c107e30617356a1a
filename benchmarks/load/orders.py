"""Orders to a generator and its answers: one line of JSON each, matched by ``id``."""

from __future__ import annotations

from typing import Any

import msgspec


class LoadTarget(msgspec.Struct, frozen=True):
    """A server. Its HTTP API may have another address than its WebSockets.

    :ivar dialect: its preset.
    :ivar redis_url: its Redis; empty if unknown.
    """

    dialect: str
    host: str
    port: int
    api_host: str
    api_port: int
    app_id: str
    key: str
    secret: str
    tls: bool = False
    path: str = ""
    redis_url: str = ""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"LoadTarget({self.name})"

    @property
    def name(self) -> str:
        """The server's name in reports."""
        return f"{self.dialect} at {self.host}:{self.port}{self.path}"


class Aim(msgspec.Struct, tag=True):
    """Set the server for all further orders."""

    target: LoadTarget


class Join(msgspec.Struct, tag=True):
    """Clients that subscribe to one channel each. ``{}`` in ``channel`` and ``data`` is a client's number.

    :ivar data: channel_data of a presence channel; empty for none.
    :ivar rate: clients per second, by schedule; 0: as fast as the server accepts a bounded number at a time.
    :ivar begin: start of the schedule, in microseconds.
    :ivar stay: seconds after which each leaves; 0: until asked to.
    :ivar late: they subscribe while streams run, and may miss their beginnings.
    :ivar stalled: they stop reading as soon as they have subscribed.
    """

    first: int
    count: int
    channel: str
    data: str = ""
    rate: float = 0.0
    begin: int = 0
    stay: float = 0.0
    late: bool = False
    stalled: bool = False


class Lane(msgspec.Struct):
    """One HTTP connection, which publishes on its streams in turn.

    :ivar streams: number and channel of each.
    :ivar rate: events per second; 0: one after the other, as fast as answers come.
    """

    streams: list[tuple[int, str]]
    rate: float = 0.0
    offset: float = 0.0


class Publish(msgspec.Struct, tag=True):
    """Publish over HTTP. ``size``: characters of an event's data. ``limit``: most events of one lane."""

    lanes: list[Lane]
    begin: int
    seconds: float
    size: int
    limit: int = 10_000_000


class ClaimMessages(msgspec.Struct, tag=True):
    """Claim a message in Redis for each user, as a worker does.

    :ivar streams: number and user of each.
    """

    streams: list[tuple[int, str]]


class WriteTokens(msgspec.Struct, tag=True):
    """Write tokens of the claimed messages, in turn.

    :ivar rate: tokens per second, of all messages together.
    :ivar offset: as in :class:`.schedule.Pace`.
    :ivar size: characters of a token.
    """

    begin: int
    seconds: float
    rate: float
    size: int
    offset: float = 0.0


class Finish(msgspec.Struct, tag=True):
    """End the claimed messages."""


class ReadCounts(msgspec.Struct, tag=True):
    """Return the :class:`GeneratorCounts` so far."""


class Reset(msgspec.Struct, tag=True):
    """Reset all counts; clients stay connected."""


class Resume(msgspec.Struct, tag=True):
    """Make stalled clients read again."""


class Leave(msgspec.Struct, tag=True):
    """Disconnect all clients, and close HTTP connections."""


Order = Aim | Join | Publish | ClaimMessages | WriteTokens | Finish | ReadCounts | Reset | Resume | Leave


class OrderRequest(msgspec.Struct):
    """One line to a generator."""

    id: int
    order: Order


class OrderResponse(msgspec.Struct):
    """One line from a generator. ``error``: why the order failed."""

    id: int
    value: Any = None
    error: str = ""


class GeneratorCounts(msgspec.Struct):
    """The counts of a generator since the last :class:`Reset`.

    :ivar received: events with a stamp, by all clients that read.
    :ivar aside: events with a stamp at clients that are ``late`` or ``stalled``, and of them
        ``aside_gaps`` and ``aside_backwards``; the fields without ``aside`` are of all others.
    :ivar gaps: events that a client did not receive before a later one.
    :ivar backwards: events that a client received again, or after a later one.
    :ivar members: presence members that clients were told of, in rosters and by ``member_added``.
    :ivar failed: clients that could not subscribe, by reason.
    :ivar lost: clients that the server has closed, by close code.
    :ivar sent: events that the server accepted, or tokens that Redis accepted.
    :ivar refused: requests or appends that were not accepted, by HTTP status or error.
    :ivar histograms: by name, in microseconds: ``latency``, ``connected``, ``subscribed``, ``request``,
        ``late`` (the generator's own delay in sending).
    """

    received: int = 0
    gaps: int = 0
    backwards: int = 0
    aside: int = 0
    aside_gaps: int = 0
    aside_backwards: int = 0
    members: int = 0
    joined: int = 0
    failed: dict[str, int] = {}
    lost: dict[str, int] = {}
    sent: int = 0
    refused: dict[str, int] = {}
    histograms: dict[str, dict[int, int]] = {}
