"""Every Redis name and byte layout that the two programs share.

Braces in a key are literal: they are the hash tags of Redis Cluster. All keys of one channel of one
application are in one slot, so that one script can use them together. Names are unambiguous because neither
application ids nor channel names can contain ``{``, ``}`` or ``:`` (:mod:`legato.protocol.channels`).

The programs use these names through :class:`.names.Names`, which adds the installation's prefix.

The hash at :func:`message_key` has these fields:

================ =========================================================================
``user``         the owner's id as JSON (``7`` or ``"ann"``)
``state``        ``queued``, ``streaming``, ``waiting`` for an approval, or an end: ``complete``, ``failed``,
                 ``cancelled``
``attempt``      number of claims, without claims that were handed back
``claim``        the fencing token: the unique token of the newest claim. Scripts refuse writes with another
``ticket``       the delivery of the job that led to the claim. An older delivery cannot claim any more
``begun``        when and how the model first accepted the request, as JSON
                 (:class:`legato.protocol.stream.Begun`)
``usage``        usage of all attempts so far, as JSON (:class:`legato.protocol.stream.Usage`)
``next``         the number of entries in the log, which is the next offset to append
``cancel``       ``1`` once a cancel was requested
``error``        text for users, when ``failed``
``conversation`` the conversation of the message, if it has one
``sent``         what was sent there, as JSON (:class:`legato.protocol.conversations.SentMessage`), until the
                 reply ends. A job of another program has both from its first claim on
``queue``        the queue where the job is parked, when ``waiting``
``resumed``      the claim that took the message up again after it was ``waiting``
================ =========================================================================
"""

from __future__ import annotations

from typing import Final, NamedTuple

GROUP: Final = "workers"
"""The consumer group on every job stream."""

JOB_FIELD: Final = "job"
"""The field of a job entry; its value is a :class:`legato.protocol.jobs.Job` as JSON."""

CANCEL_SECONDS: Final = 300
"""Lifetime of a cancel flag. The field ``cancel`` of the message's hash covers longer waits."""


def jobs_key(queue: str) -> str:
    """Stream of waiting and running jobs. Entries leave by XACK and XDEL, never by trimming."""
    return f"legato:jobs:{{{queue}}}"


def queued_mark(queue: str, message_id: str) -> str:
    """String that exists once the job of an idempotent request is queued."""
    return f"legato:queued:{{{queue}}}:{message_id}"


def dead_key(queue: str) -> str:
    """Stream of dead letters: jobs that could not be answered, with the reason."""
    return f"legato:dead:{{{queue}}}"


WAITING_ROOM: Final = "#waiting"
"""The consumer of the group that holds the jobs that wait for their turn, where admission is fair."""


def fair_key(queue: str, part: str) -> str:
    """One key of a waiting room. All that it says is in the job stream too (``worker/jobs/pick.lua``).

    ============  =====  ================================================================================
    ``part``      type
    ============  =====  ================================================================================
    ``owners``    hash   id of each waiting or claimed job -> ``tenant|app:user|message|channel``
    ``waiting``   zset   ``tenant|app:user|id`` of the waiting jobs, the id padded, all with score 0
    ``claimed``   zset   the same of the claimed jobs
    ``users``     zset   ``tenant|turn|app:user`` of users with waiting jobs, with score 0; the turn begins
                         with 1 for a user at the maximum, else 0
    ``tenants``   zset   tenants with waiting jobs -> turn; above 2^52 for a tenant at its maximum
    ``turns``     hash   ``#``: the last turn given; ``u`` + tenant + ``|`` + user -> the user's turn;
                         ``c`` + tenant -> jobs that the tenant may still claim in its turn
    ``reporter``  string the worker that publishes positions
    ============  =====  ================================================================================
    """
    return f"legato:fair:{{{queue}}}:{part}"


QUEUES_KEY: Final = "legato:queues"
"""Set of the names of all queues that a worker ever served."""

WORKERS_KEY: Final = "legato:workers"
"""Set of the ids of worker processes and supervisors. A hint: a killed one stays in it."""

PAUSED_KEY: Final = "legato:paused"
"""Hash of paused queues: queue or :data:`ALL_QUEUES` -> when it was paused, in ms since 1970."""

ALL_QUEUES: Final = "*"
"""Stands for every queue in :data:`PAUSED_KEY`."""

ORDER_DRAIN: Final = "drain"
"""Value of :func:`order_key`: claim no more jobs, finish, exit."""


def worker_key(worker_id: str) -> str:
    """String with the status of a worker process or supervisor, as JSON. Expires soon after its end."""
    return f"legato:worker:{{{worker_id}}}"


def order_key(worker_id: str) -> str:
    """String with an order for a worker process or supervisor."""
    return f"legato:order:{{{worker_id}}}"


def message_key(app_id: str, channel: str, message_id: str) -> str:
    """Hash with the state of one message."""
    return f"legato:msg:{{{app_id}:{channel}}}:{message_id}"


def log_key(app_id: str, channel: str, message_id: str) -> str:
    """Stream with one entry per offset; see :func:`log_entry_id`."""
    return f"legato:log:{{{app_id}:{channel}}}:{message_id}"


def steps_key(app_id: str, channel: str, message_id: str) -> str:
    """Hash with what only workers may read of a reply: offset -> JSON. Removed when the reply ends."""
    return f"legato:steps:{{{app_id}:{channel}}}:{message_id}"


def approvals_key(app_id: str, channel: str, message_id: str) -> str:
    """Hash of the calls that need an approval: call id -> the decision as JSON, empty while there is none."""
    return f"legato:approvals:{{{app_id}:{channel}}}:{message_id}"


def parked_key(queue: str) -> str:
    """Hash of the jobs that wait for an approval: :func:`parked_name` -> the job as JSON."""
    return f"legato:parked:{{{queue}}}"


def waiting_key(queue: str) -> str:
    """Sorted set of the same jobs: :func:`parked_name` -> when to queue it again, in Unix time (ms)."""
    return f"legato:waiting:{{{queue}}}"


def parked_name(app_id: str, channel: str, message_id: str) -> str:
    """Name of a message in :func:`parked_key`."""
    return f"{app_id}:{channel}:{message_id}"


def parked_message(name: str) -> tuple[str, str, str]:
    """The inverse of :func:`parked_name`: none of the three has a colon."""
    app_id, _, rest = name.partition(":")
    channel, _, message_id = rest.rpartition(":")
    return app_id, channel, message_id


def active_key(app_id: str, channel: str) -> str:
    """Set of the ids of messages that are streaming on the channel."""
    return f"legato:active:{{{app_id}:{channel}}}"


def open_key(app_id: str, channel: str) -> str:
    """Sorted set: id of a waiting or streaming message of the channel -> when to forget it, in Unix time."""
    return f"legato:open:{{{app_id}:{channel}}}"


ENDED_SECONDS: Final = 300
"""How long :func:`ended_key` remembers. In a longer gap a node misses replies that began and ended in it."""

MAX_ENDED: Final = 16
"""Largest number of messages that :func:`ended_key` remembers, the newest."""


def ended_key(app_id: str, channel: str) -> str:
    """Sorted set: id of an ended message of the channel -> when it ended, in milliseconds of Redis' clock."""
    return f"legato:ended:{{{app_id}:{channel}}}"


def bus_channel(app_id: str, channel: str, database: int = 0) -> str:
    """The sharded pub/sub channel of one Pusher channel of one application.

    ``database`` separates installations that share a Redis, because pub/sub ignores databases.
    """
    if database:
        return f"legato:bus:{database}:{{{app_id}:{channel}}}"
    return f"legato:bus:{{{app_id}:{channel}}}"


def subscriptions_key(app_id: str, channel: str) -> str:
    """Hash with one field per subscription of the whole cluster: socket id -> node id.

    Two digits follow after ``:`` if it was the first of the channel or of its user (``join.lua``).
    """
    return f"legato:subs:{{{app_id}:{channel}}}"


CONNECTIONS: Final = "#connections"
"""Pseudo-channel of all connections of an application with a quota."""


def users_key(app_id: str, channel: str) -> str:
    """Hash of a presence channel: user id -> number of the user's connections on it."""
    return f"legato:users:{{{app_id}:{channel}}}"


def members_key(app_id: str, channel: str) -> str:
    """Hash of a presence channel: user id -> the member as JSON."""
    return f"legato:members:{{{app_id}:{channel}}}"


def held_key(app_id: str, channel: str) -> str:
    """Hash of the departures with held webhooks: ``c``, or ``u`` and the user id -> node id."""
    return f"legato:held:{{{app_id}:{channel}}}"


def answer_key(app_id: str, channel: str, call: str) -> str:
    """String with the answer of a script, kept for a minute in case the answer is lost and the call repeated.

    ``call`` is unique to the call (``leave.lua``, ``release.lua``).
    """
    return f"legato:answer:{{{app_id}:{channel}}}:{call}"


def cache_key(app_id: str, channel: str) -> str:
    """String with the last event of a cache channel: its version in 16 digits, then ``[event, data]``."""
    return f"legato:cached:{{{app_id}:{channel}}}"


def occupied_key(app_id: str) -> str:
    """Set of the channels that may be occupied. A hint, because it is in another slot than theirs."""
    return f"legato:occupied:{{{app_id}}}"


NODES_KEY: Final = "legato:nodes"
"""Set of the ids of all broadcaster nodes that have not stopped in order."""


def lease_key(node_id: str) -> str:
    """String with the state of a node; it exists as long as the node lives."""
    return f"legato:lease:{{{node_id}}}"


def entries_key(node_id: str) -> str:
    """Set of the subscriptions that depend on the node's lease."""
    return f"legato:entries:{{{node_id}}}"


def connections_key(node_id: str) -> str:
    """Hash: application id -> number of the node's connections. Valid while the node holds its lease."""
    return f"legato:connections:{{{node_id}}}"


def idempotency_key(app_id: str, user: str, key: str) -> str:
    """String with the message of a user's ``Idempotency-Key``."""
    return f"legato:idempotency:{{{app_id}:{user}}}:{key}"


def door_chat_key(app_id: str, user: str, chat: str) -> str:
    """String with the newest message of a chat that a client names; ``chat`` is a hash of that name."""
    return f"legato:chat:{{{app_id}:{user}}}:{chat}"


def door_read_key(app_id: str, user: str, message_id: str) -> str:
    """String that exists while it matters that a client has read the message to its end."""
    return f"legato:read:{{{app_id}:{user}}}:{message_id}"


def cancel_flags(message_id: str) -> tuple[str, str]:
    """The cancel flag in both spellings: with a hash tag, as Legato writes it, and without.

    Other programs may set either (``SET stream_cancel:ID 1 EX 300``).
    """
    return f"stream_cancel:{{{message_id}}}", f"stream_cancel:{message_id}"


def backoff_key(digest: str) -> str:
    """Hash that exists while a provider is overloaded; ``digest`` is a hash of the account."""
    return f"legato:backoff:{{{digest}}}"


LOG_TEXT: Final = "t"
"""Field of a token's log entry: its text."""

LOG_KIND: Final = "k"
"""Field of another part's log entry: its kind (:mod:`.parts`)."""

LOG_DATA: Final = "d"
"""Field of another part's log entry: the part as JSON, without what is private."""

LOG_INDEX: Final = "i"
"""Field of a log entry: the index of its token, or of the next one. Absent where a token's is its offset."""

LOG_FINAL: Final = "f"
"""Field of the final marker, a :class:`legato.protocol.stream.Decision` as JSON."""

LOG_FINAL_ID: Final = "2-1"
"""Id of the final marker, after every other entry."""


def log_entry_id(offset: int) -> str:
    """The stream id of the entry at ``offset``: ``1-1``, ``1-2`` ... Redis refuses a second XADD of one."""
    return f"1-{offset + 1}"


TERMINATE: Final = "terminate"
"""Close all connections with the channel; with a user's channel, those signed in as the user."""

RECONNECT: Final = "reconnect"
"""The same with a close code that makes them reconnect at once."""

ASIDE: Final = "aside"
"""The frame belongs to the message in ``stream`` but not to its log; ``index`` entries precede it."""

SKIP: Final = "skip"
"""There is no frame: the message in ``stream`` has an entry at offset ``index`` that readers do not see."""

MANY: Final = "many"
"""The entry at offset ``index`` has several frames, one a line. So may an end have, but nothing else."""

END: Final = "end"
"""The frame ends the message in ``stream`` after ``index`` entries. ``detail``: its state."""

CACHED: Final = "cached"
"""The frame is the last event of a cache channel. ``detail``: its version, which increases."""


class Envelope(NamedTuple):
    """One message on the bus: the Pusher frame for every subscriber, and how to deliver it.

    ``stream`` is ``(message_id, offset)`` for a frame of a reply, so that a node detects a gap without
    parsing the frame. ``command`` is for the nodes: empty, or one of the constants above; a node delivers
    the frame of an unknown command. ``detail`` has neither ``;`` nor ``=``.
    """

    payload: bytes
    except_socket_id: str | None = None
    stream: tuple[str, int] | None = None
    command: str = ""
    detail: str = ""


_new: Final = tuple.__new__
"""Creates an ``Envelope`` from all fields. Its own ``__new__`` is a Python function and twice as slow."""


class EnvelopeError(ValueError):
    """The bytes on the bus are not an envelope of this version."""


def encode_envelope(envelope: Envelope) -> bytes:
    r"""Put ``EXCEPT;MESSAGE_ID;INDEX;COMMAND\n`` before the payload, or just ``\n`` if all are absent.

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
    """Decode the result of :func:`encode_envelope`.

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
