"""The record of a run for the auditor. Data only.

Times are seconds since the epoch, of one clock for all processes of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ledger import CallRecord
    from .script import ReplyScript

ENDS = frozenset({"complete", "failed", "cancelled"})


@dataclass(frozen=True)
class Sent:
    """A message that was submitted.

    :ivar at: when the first request for it began: before that, nothing of it can have been published.
    :ivar ended: when it was known to have ended, so that its terminal event had been published; None if it
        was not.
    :ivar cancel_index: how many entries its log had when a cancel had been accepted; None without one.
    """

    id: str
    user: str
    script: ReplyScript
    at: float
    ended: float | None = None
    cancel_index: int | None = None


@dataclass(frozen=True)
class TurnRow:
    """A turn in the database."""

    role: str
    content: str
    status: str


@dataclass(frozen=True)
class LoggedPart:
    """An entry of a log that is not text."""

    offset: int
    token_index: int
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """The state of a message in Redis and the database at the end of the run.

    :ivar next: the number of entries that Redis says the log has.
    :ivar log: the text of each index.
    :ivar parts: the other entries.
    :ivar decided: the state that the final marker names, empty without a marker; ``code`` is its code.
    """

    state: str
    next: int
    attempt: int
    log: tuple[str, ...]
    decided: str = ""
    code: str = ""
    rows: tuple[TurnRow, ...] = ()
    parts: tuple[LoggedPart, ...] = ()

    @property
    def entries(self) -> int:
        """Entries of the log."""
        return len(self.log) + len(self.parts)


# --- records of a reader, in order


@dataclass(frozen=True)
class Subscribed:
    """The subscription has succeeded: from here on the connection carries the user's channel."""

    at: float


@dataclass(frozen=True)
class Disconnected:
    """The connection was lost or closed."""

    at: float


@dataclass(frozen=True)
class Frame:
    """An event on the channel, with its data as the client library decoded it."""

    at: float
    event: str
    data: Any


@dataclass(frozen=True)
class Read:
    """The answer to ``GET /api/chat/{id}``."""

    at: float
    id: str
    body: Any


Entry = Subscribed | Disconnected | Frame | Read


@dataclass(frozen=True)
class ReaderRecord:
    """One client of one user, connected to one node."""

    name: str
    user: str
    node: int
    entries: Sequence[Entry]


# --- visits


@dataclass(frozen=True)
class SubscribeSent:
    """The client is about to subscribe. It may never receive the answer."""

    at: float
    channel: str


@dataclass(frozen=True)
class Came:
    """A subscription to a channel has succeeded."""

    at: float
    channel: str


@dataclass(frozen=True)
class Went:
    """The subscription has ended: unsubscribed, or the connection was lost."""

    at: float
    channel: str


@dataclass(frozen=True)
class Members:
    """The member list of the presence channel in the client library from now on."""

    at: float
    ids: frozenset[str]


@dataclass(frozen=True)
class Visitor:
    """One client and its channels.

    :ivar stays: whether it stays to the end of the run.
    """

    name: str
    user: str
    stays: bool
    entries: Sequence[SubscribeSent | Came | Went | Members]


@dataclass(frozen=True)
class Told:
    """A webhook event; ``at`` is when it arrived, ``user`` is empty for events of a channel."""

    at: float
    node: int
    event: str
    channel: str
    user: str = ""


@dataclass(frozen=True)
class RoomRecord:
    """Which clients were on which channels, and what lists, APIs and webhooks reported.

    :ivar presence: the channel that all visitors are on.
    :ivar users: node -> whom its HTTP API names as that channel's users.
    :ivar counts: node -> channel -> the subscriptions that its HTTP API counts.
    :ivar kills: when a node was killed: what it had not told yet is not told.
    :ivar refused: webhook requests whose signature is wrong.
    """

    presence: str
    visitors: Sequence[Visitor] = ()
    users: Mapping[int, frozenset[str]] = field(default_factory=dict)
    counts: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    told: Sequence[Told] = ()
    kills: Sequence[float] = ()
    refused: int = 0


@dataclass(frozen=True)
class Rules:
    """The promises of the build under test.

    :ivar continues: a reply that was interrupted goes on; else it fails, partial.
    :ivar tries: how many attempts a reply has.
    """

    continues: bool = True
    tries: int = 2


@dataclass(frozen=True)
class Record:
    """A whole run.

    :ivar kept: by message id.
    :ivar strangers: ids that Redis knows and nobody submitted.
    :ivar jobs_left: entries that are still in the job stream.
    :ivar dead: message id -> the reason for its dead letter.
    :ivar room: None where nobody looked.
    :ivar calls: what tools did.
    """

    sent: Sequence[Sent]
    kept: Mapping[str, Kept]
    readers: Sequence[ReaderRecord]
    rules: Rules = field(default_factory=Rules)
    strangers: Sequence[str] = ()
    jobs_left: int = 0
    dead: Mapping[str, str] = field(default_factory=dict)
    room: RoomRecord | None = None
    calls: Sequence[CallRecord] = ()
