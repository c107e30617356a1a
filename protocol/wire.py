"""Every name and byte layout that crosses Redis, in one place.

Braces in a key are literal: they are Redis Cluster hash tags, so that all keys of one channel of one
application live in one slot and one script may touch them together. Names are unambiguous because
neither application ids nor channel names can contain ``{``, ``}`` or ``:`` (:mod:`legato.protocol.channels`).

The programs use these names through :class:`.names.Names`, which knows the installation's prefix.

The hash at :func:`message_key` has these fields:

=============  =========================================================================
``user``       the owner's id as JSON (``7`` or ``"ann"``)
``state``      ``queued``, ``streaming``, or an end: ``complete``, ``failed``, ``cancelled``
``attempt``    how many times the message was claimed, not counting claims that were handed back
``claim``      the fence: the unique token of the newest claim. Only who holds it may write
``ticket``     which delivery of which job the claim came by. An older delivery cannot claim any more
``usage``      what all attempts up to now have used, as JSON (:class:`legato.protocol.stream.Usage`)
``next``       the number of indexes in the log, which is the next index to append
``cancel``     ``1`` once somebody asked to stop it
``error``      text for people, when ``failed``
=============  =========================================================================
"""

from __future__ import annotations

from typing import Final, NamedTuple

GROUP: Final = "workers"
"""The consumer group on every job stream."""

JOB_FIELD: Final = "job"
"""The one field of a job entry; its value is a :class:`legato.protocol.stream.Job` as JSON."""

CANCEL_SECONDS: Final = 300
"""How long a cancel flag lives. A job that waits longer than this is cancelled by its hash instead."""


def jobs_key(queue: str) -> str:
    """Stream of jobs that wait or run. Entries leave by XACK and XDEL, never by trimming."""
    return f"legato:jobs:{{{queue}}}"


def queued_mark(queue: str, message_id: str) -> str:
    """String that is there once the job of an idempotent request is queued."""
    return f"legato:queued:{{{queue}}}:{message_id}"


def dead_key(queue: str) -> str:
    """Stream of jobs given up on, with the reason."""
    return f"legato:dead:{{{queue}}}"


QUEUES_KEY: Final = "legato:queues"
"""Set of the names of all queues that a worker ever served."""

WORKERS_KEY: Final = "legato:workers"
"""Set of the ids of worker processes and their supervisors: a hint, which a killed one stays in."""

PAUSED_KEY: Final = "legato:paused"
"""Hash of what workers do not claim from: queue or :data:`ALL_QUEUES` -> since when, in ms since 1970."""

ALL_QUEUES: Final = "*"
"""Stands for every queue in :data:`PAUSED_KEY`."""

ORDER_DRAIN: Final = "drain"
"""Value of :func:`order_key`: claim no more, finish, exit."""


def worker_key(worker_id: str) -> str:
    """String with what a worker process or supervisor is and does, as JSON; gone soon after it is."""
    return f"legato:worker:{{{worker_id}}}"


def order_key(worker_id: str) -> str:
    """String with what a worker process or supervisor is to do."""
    return f"legato:order:{{{worker_id}}}"


def message_key(app_id: str, channel: str, message_id: str) -> str:
    """Hash with the state of one message."""
    return f"legato:msg:{{{app_id}:{channel}}}:{message_id}"


def log_key(app_id: str, channel: str, message_id: str) -> str:
    """Stream with one entry per token index; see :func:`log_entry_id`."""
    return f"legato:log:{{{app_id}:{channel}}}:{message_id}"


def active_key(app_id: str, channel: str) -> str:
    """Set of the ids of messages that stream on the channel now."""
    return f"legato:active:{{{app_id}:{channel}}}"


def open_key(app_id: str, channel: str) -> str:
    """Sorted set: id of a message that waits or streams on the channel -> when to forget it, in Unix time."""
    return f"legato:open:{{{app_id}:{channel}}}"


ENDED_SECONDS: Final = 300
"""How long :func:`ended_key` remembers: a node that is deaf for longer misses what began and ended then."""

MAX_ENDED: Final = 16
"""How many messages :func:`ended_key` remembers, the newest."""


def ended_key(app_id: str, channel: str) -> str:
    """Sorted set: id of a message that has ended on the channel -> when, in milliseconds by Redis's clock."""
    return f"legato:ended:{{{app_id}:{channel}}}"


def bus_channel(app_id: str, channel: str, database: int = 0) -> str:
    """The sharded pub/sub channel that carries one Pusher channel of one application.

    ``database`` keeps those apart who share a Redis: it delivers to all who listen, in whatever database.
    """
    if database:
        return f"legato:bus:{database}:{{{app_id}:{channel}}}"
    return f"legato:bus:{{{app_id}:{channel}}}"


def subscriptions_key(app_id: str, channel: str) -> str:
    """Hash with one field per subscription of the whole cluster: socket id -> node id.

    Behind ``:`` follow two digits if it was the first of the channel, or of its user (``join.lua``).
    """
    return f"legato:subs:{{{app_id}:{channel}}}"


CONNECTIONS: Final = "#connections"
"""Stands for a channel that every connection of an application with a quota is on."""


def users_key(app_id: str, channel: str) -> str:
    """Hash of a presence channel: user id -> how many connections the user has on it."""
    return f"legato:users:{{{app_id}:{channel}}}"


def members_key(app_id: str, channel: str) -> str:
    """Hash of a presence channel: user id -> the member as JSON."""
    return f"legato:members:{{{app_id}:{channel}}}"


def held_key(app_id: str, channel: str) -> str:
    """Hash of the departures whose webhooks are held back: ``c`` or ``u`` and the user id -> node id."""
    return f"legato:held:{{{app_id}:{channel}}}"


def answer_key(app_id: str, channel: str, call: str) -> str:
    """String for a minute: what a script has answered, for the caller that comes again as it heard nothing.

    ``call`` is unique to the call (``leave.lua``, ``release.lua``).
    """
    return f"legato:answer:{{{app_id}:{channel}}}:{call}"


def cache_key(app_id: str, channel: str) -> str:
    """String with the last event of a cache channel: its version in 16 digits, then ``[event, data]``."""
    return f"legato:cached:{{{app_id}:{channel}}}"


def occupied_key(app_id: str) -> str:
    """Set of the channels that may be occupied: a hint, in another slot than theirs."""
    return f"legato:occupied:{{{app_id}}}"


NODES_KEY: Final = "legato:nodes"
"""Set of the ids of all broadcaster nodes that have not said goodbye."""


def lease_key(node_id: str) -> str:
    """String that is there as long as the node lives: its state."""
    return f"legato:lease:{{{node_id}}}"


def entries_key(node_id: str) -> str:
    """Set of the subscriptions that hang on the node's lease."""
    return f"legato:entries:{{{node_id}}}"


def connections_key(node_id: str) -> str:
    """Hash: application id -> how many connections the node has. It counts while the node's lease stands."""
    return f"legato:connections:{{{node_id}}}"


def idempotency_key(app_id: str, user: str, key: str) -> str:
    """String that remembers which message an ``Idempotency-Key`` of a user made."""
    return f"legato:idempotency:{{{app_id}:{user}}}:{key}"


def cancel_flags(message_id: str) -> tuple[str, str]:
    """The cancel flag in both spellings: with a hash tag, which Legato writes, and without.

    Other programs may set either (``SET stream_cancel:ID 1 EX 300``).
    """
    return f"stream_cancel:{{{message_id}}}", f"stream_cancel:{message_id}"


def backoff_key(digest: str) -> str:
    """Hash that is there while a provider has no room; ``digest`` stands for the account and hides it."""
    return f"legato:backoff:{{{digest}}}"


LOG_TEXT: Final = "t"
"""Field of a token's log entry: its text."""

LOG_FINAL: Final = "f"
"""Field of the final marker: how the reply ends, as JSON (:class:`legato.protocol.stream.Decision`)."""

LOG_FINAL_ID: Final = "2-1"
"""Id of the final marker, behind every token."""


def log_entry_id(index: int) -> str:
    """The stream id of token ``index`` (from 0): ``1-1``, ``1-2`` ... A second XADD of one is refused."""
    return f"1-{index + 1}"


TERMINATE: Final = "terminate"
"""Close all that have the channel: on a user's own channel, those who are signed in as the user."""

RECONNECT: Final = "reconnect"
"""The same, but they come back at once."""

ASIDE: Final = "aside"
"""The frame is about the message in ``stream`` and not in its log; ``index`` tokens are before it."""

END: Final = "end"
"""The frame ends the message in ``stream``, which has ``index`` tokens. ``detail``: its state."""

CACHED: Final = "cached"
"""The frame is what a cache channel keeps. ``detail``: its version, a number that grows."""


class Envelope(NamedTuple):
    """One message on the bus: the Pusher frame as every subscriber gets it, and how to deliver it.

    ``stream`` is ``(message_id, index)`` for a frame of a reply: a node sees a gap without reading the frame.
    ``command`` is for the nodes, not for subscribers: nothing, or one of the names above; a node delivers the
    frame of one that it does not know. ``detail`` has neither ``;`` nor ``=``.
    """

    payload: bytes
    except_socket_id: str | None = None
    stream: tuple[str, int] | None = None
    command: str = ""
    detail: str = ""


_new: Final = tuple.__new__
"""Makes an ``Envelope`` of all its fields; its own ``__new__`` is a Python function, at twice the price."""


class EnvelopeError(ValueError):
    """The bytes on the bus are not an envelope of this version."""


def encode_envelope(envelope: Envelope) -> bytes:
    r"""``EXCEPT;MESSAGE_ID;INDEX;COMMAND\n`` before the payload, or just ``\n`` when all are absent.

    A command with a detail is ``COMMAND=DETAIL``.
    """
    if envelope.except_socket_id is None and envelope.stream is None and not envelope.command:
        return b"\n" + envelope.payload
    message_id, index = envelope.stream or ("", "")
    command = f"{envelope.command}={envelope.detail}" if envelope.detail else envelope.command
    header = f"{envelope.except_socket_id or ''};{message_id};{index};{command}\n"
    return header.encode() + envelope.payload


def encode_token(frame: bytes, message_id: str, index: int) -> bytes:
    """As ``encode_envelope(Envelope(frame, stream=(message_id, index)))``, at a third of the price."""
    return b";%b;%d;\n%b" % (message_id.encode(), index, frame)


def decode_envelope(data: bytes) -> Envelope:
    """Undo :func:`encode_envelope`.

    :raises EnvelopeError: the header is missing or malformed.
    """
    header, newline, payload = data.partition(b"\n")
    if not newline:
        raise EnvelopeError("no envelope header")
    if not header:
        return Envelope(payload)
    try:
        except_socket_id, message_id, index, command = header.decode("ascii").split(";")
        stream = (message_id, int(index)) if message_id else None
    except ValueError as error:  # UnicodeDecodeError is one
        raise EnvelopeError("bad envelope header") from error
    if not command:
        return _new(Envelope, (payload, except_socket_id or None, stream, "", ""))
    command, _, detail = command.partition("=")
    return Envelope(payload, except_socket_id or None, stream, command, detail)
