"""Limits, timeouts, batch sizes and intervals of the broadcaster that are not settings, by room.

Those of databases are in :mod:`.database_limits`; numbers of a format or an algorithm are where it is.
"""

from typing import Final

# --- The process: its start, its stop and its work per loop turn

FORCED_EXIT_CHECK_SECONDS: Final = 0.1
"""Interval at which a drain looks for a second signal, which ends it."""

CLOSED_CHECK_SECONDS: Final = 0.02
"""Interval at which the shutdown looks whether all clients have answered their close frames."""

GC_YOUNG_OBJECTS: Final = 20_000
"""New objects after which the garbage collector looks for cycles."""

HEARTBEAT_SECONDS: Final = 1.0
"""Interval of the signs of life for the parent process, if it wants any."""

SHUTDOWN_REQUEST_SECONDS: Final = 2
"""How long the shutdown waits for running HTTP requests."""

DRAIN_CLOSE_SECONDS: Final = 1.0
"""How long the shutdown waits for clients to answer their close frames."""

FILE_LIMIT_CHECK_TICKS: Final = 20
"""Ticks of uvicorn between two checks of the limit of open files."""

SHUTDOWN_PUBLISH_SECONDS: Final = 2.0
"""How long a stop waits for the messages of clients to be published."""

LEASE_RELEASE_SECONDS: Final = 4.0
"""How long a stop waits for Redis to accept the release of the lease."""

ITEMS_PER_TURN: Final = 1000
"""Items that a long loop processes per turn of the event loop."""

# --- The client of Redis, and warnings

REDIS_CONNECTIONS: Final = 32
"""Maximum connections per server of the client for commands."""

REDIS_TIMEOUT_SECONDS: Final = 5
"""Time limit of connecting, of an answer, and of the wait for a connection of the pool."""

REDIS_HEALTH_CHECK_SECONDS: Final = 15
"""Idle time after which a connection is checked with a PING before its next use."""

WARNING_SECONDS: Final = 60.0
"""Minimum time between two warnings about one kind of trouble."""

# --- api/: the HTTP API and the chat

DEV_TOKEN_SECONDS: Final = 12 * 3600
"""Lifetime of a token from ``/dev/token``."""

MAX_IDEMPOTENCY_KEY_CHARACTERS: Final = 255
"""Maximum length of an ``Idempotency-Key``, which is stored with its message."""

CACHED_CHANNEL_NAMES: Final = 4096
"""Channel names whose parsed form is cached."""

CACHED_PATHS: Final = 1024
"""Cached paths: nearly all requests use a few."""

MAX_CACHED_PATH_BYTES: Final = 256
"""Maximum length of a cached path."""

# --- apps/: where applications come from

APP_CHECKS_PER_TURN: Final = 200
"""Applications that are checked per turn of the event loop; a few milliseconds."""

# --- auth/: signatures, JWTs and the keys that verify them

AUTH_REQUEST_MAX_BYTES: Final = 16_384
"""Maximum size of a request to an auth endpoint, whose form is short."""

AUTH_FORM_MAX_FIELDS: Final = 32
"""Maximum number of fields of such a form; each costs a call of the parser."""

JWKS_FETCH_SECONDS: Final = 5.0
"""Time limit of one fetch of the key set, from connecting to parsing."""

JWKS_MAX_BYTES: Final = 262_144
"""Maximum size of a key set."""

JWKS_COOL_DOWN_SECONDS: Final = 10.0
"""Minimum time between two fetches of the key set, also after a failure."""

JWKS_STALE_SECONDS: Final = 3600.0
"""How long expired keys stay in use while fetching new ones fails."""

JWT_MAX_CHARACTERS: Final = 8_192
"""Maximum length of a bearer token."""

JWT_LEEWAY_SECONDS: Final = 30
"""Clock skew that is tolerated in ``exp``, ``nbf`` and ``iat``."""

# --- bus/: publishing and subscribing through Redis

CHANNEL_LINGER_SECONDS: Final = 5.0
"""How long a channel without subscribers stays subscribed on the bus."""

MAX_LINGERING_CHANNELS: Final = 10_000
"""Maximum number of lingering channels; above it, the oldest is unsubscribed."""

UNSUBSCRIBES_PER_TURN: Final = 256
"""Maximum number of channels unsubscribed per turn of the loop."""

MAX_OUTBOX_MESSAGES: Final = 10_000
"""Maximum number of messages that wait for Redis; above it, publishing fails at once."""

PUBSUB_READ_PAUSE_BYTES: Final = 131_072
"""After a read of this many bytes, the rest of the loop runs before the next read."""

CHANNELS_PER_SUBSCRIBE: Final = 500
"""Maximum number of channels per SSUBSCRIBE, outside of a Cluster, and of commands per write."""

BUS_HEALTH_CHECK_SECONDS: Final = 10.0
"""After this long without a reply a PING is sent; after as long again the connection is given up."""

MASTER_CHECK_SECONDS: Final = 1.0
"""Interval of the check whether another connection has seen that the server is no longer a master."""

# --- channels/: fan-out and subscription counts

UNTHROTTLED_COUNT_SUBSCRIBERS: Final = 100
"""Up to this many subscribers, every change of the count is sent at once."""

COUNT_INTERVAL_SECONDS: Final = 5.0
"""Above :data:`UNTHROTTLED_COUNT_SUBSCRIBERS`, the minimum time between two counts of a channel."""

MAX_HELD_WRITES: Final = 10_000
"""Writes that are buffered for a subscriber which is not answered yet. Subscribers share the bytes."""

FLUSH_SECONDS: Final = 0.003
"""The flush budget: how long the writes of one loop turn may take, over all channels."""

WRITES_PER_CLOCK_READ: Final = 64
"""Writes of a flush between two reads of the clock, and of one channel before the next has its turn."""

FLUSH_BACKLOG_MESSAGES: Final = 16
"""Messages that may wait for passes to end. With more, a flush ignores its budget, or the backlog grows."""

SUBSCRIPTIONS_PER_TURN: Final = 64
"""Subscriptions of one channel that continue per turn of the loop, at most."""

# --- clients/: admission, commands and the drain

QUOTA_CHECK_SECONDS: Final = 5.0
"""Time limit for Redis to check the quota."""

SOCKET_IDS_PER_BATCH: Final = 256
"""Socket ids generated per read of the system's random source."""

DEFERRED_STEPS_PER_TURN: Final = 64
"""Steps of deferred work that are done at once, per turn of the loop. A step takes about 0.05 ms."""

DEFERRED_TURN_SECONDS: Final = 0.003
"""How long the waiting batches may hold the loop per turn."""

DEFERRED_STEPS_PER_BATCH: Final = 16
"""Steps of one batch before the next one has its turn."""

MAX_PENDING_COMMANDS: Final = 64
"""Commands in progress, or waiting, at which reading from the client pauses."""

DRAIN_STEP_SECONDS: Final = 0.05
"""Pause between two groups of clients of a drain."""

DRAIN_PEER_CHECK_SECONDS: Final = 1.0
"""Interval at which a drain checks whether another node accepts clients."""

DRAIN_PATIENCE_SECONDS: Final = 4.0
"""Time limit of Redis for one group of clients of a drain. Once exceeded, the drain no longer waits."""

PEER_CHECK_SECONDS: Final = 4.0
"""Time limit for Redis to answer whether there is another node.

If Redis hangs, a stop waits this long once at most, or as long as :data:`PEER_RECHECK_SECONDS` and
:data:`DRAIN_PATIENCE_SECONDS` together. This is part of the stop timeout that docs/cluster.md requires.
"""

PEER_RECHECK_SECONDS: Final = 1.0
"""Like :data:`PEER_CHECK_SECONDS`, after Redis has been slow once."""

# --- observability/: metrics

METRICS_BIND_RETRY_SECONDS: Final = 1.0
"""Pause before the next attempt to bind the port of the metrics."""

LOOP_DELAY_INTERVAL_SECONDS: Final = 0.02
"""Interval of the measurements of the loop's delay."""

LOOP_DELAY_MAX_MISSED: Final = 5_000
"""Maximum number of missed periods that are counted at once, after a stall of 100 s."""

METRICS_CONNECTIONS: Final = 8
"""Maximum number of metrics connections. For one more, the oldest without a complete request is cut."""

METRICS_REQUEST_SECONDS: Final = 5.0
"""Time limit of such a connection, from accepting it to the end of the answer."""

METRICS_ACCEPT_PAUSE_SECONDS: Final = 0.2
"""Pause of accepting at the limit of open files, where accepting would fail in a busy loop."""

# --- registry/: who is subscribed on which node

LEASE_SECONDS: Final = 15
"""Default lifetime of a node's lease, after which the others take its clients for gone."""

REGISTRY_CLOSE_SECONDS: Final = 2.0
"""How long a stop waits for the last changes to be written."""

REGISTRY_STUCK_SECONDS: Final = 3.0
"""How long Redis may accept no changes before the node counts as cut off."""

SCRIPT_ANSWER_SECONDS: Final = 60
"""How long a script keeps its answer for a repeated call; Redis may be unreachable for as long."""

HOLD_BACK_MARGIN_SECONDS: Final = 60
"""How long a hold-back is kept beyond the time in which its node is found dead."""

CONNECTION_COUNT_SECONDS: Final = 0.1
"""Interval of the writes of connection counts; what other nodes see may be this old."""

CONNECTION_COUNT_LEASES: Final = 4
"""Leases after which a hash of connection counts that is not written expires; nobody needs it by then."""

FAILOVER_CHECK_SECONDS: Final = 2.0
"""Time limit of the question for a server's identity. One that does not answer counts as unchanged."""

DEAD_LEASE_SECONDS: Final = 86_400
"""How long the lease of a dead node is kept. A node stopped for longer finds none, and registers anew."""

LOOP_HANG_LEASES: Final = 4
"""How many leases the event loop may be blocked before its lease is left to lapse."""

LEASE_CHECKS_PER_LEASE: Final = 8
"""How often per lease the lease thread looks, and the loop shows that it runs."""

THREAD_RENEWAL_SECONDS: Final = 2.0
"""Time limit of one renewal of the lease by the thread."""

LEASE_THREAD_JOIN_SECONDS: Final = 3.0
"""How long the shutdown waits for the lease thread. As a daemon it does not keep the process alive."""

CHANNELS_PER_QUERY: Final = 200
"""Channels that one query of the registry asks for."""

CHANGES_PER_PIPELINE: Final = 128
"""Changes of the registry in one pipeline. With their answers they hold the event loop for about 5 ms."""

# --- replies/: streamed replies and their recovery

MAX_SNAPSHOTS_PER_SUBSCRIPTION: Final = 16
"""Maximum number of snapshots per subscription; more than the open replies of a user by default."""

SNAPSHOT_ATTEMPTS: Final = 100
"""Maximum number of attempts at a snapshot."""

SNAPSHOT_RETRY_SECONDS: Final = 0.05
"""Pause between two attempts at a snapshot, when the log was read too slowly."""

CONCURRENT_LOG_READS: Final = 16
"""Logs that are read concurrently."""

SILENT_REPLY_CHECK_SECONDS: Final = 20.0
"""Interval of the check for replies that have been silent for long."""

CHANNELS_PER_RESYNC: Final = 200
"""Channels that are recovered together."""

MAX_OBSERVED_BYTES: Final = 4_194_304
"""Bound on the frames that an observer keeps. With more, the log has to be read again."""

APPROVAL_HURRY_MS: Final = 10_000
"""When a worker resumes a decided reply by itself, should the node die before it does."""

MESSAGE_RESERVED_SECONDS: Final = 60
"""How long a message counts as open before its job is known to be queued; longer than any call takes."""

# --- transport/: reading

READ_SLICE_MESSAGES: Final = 8
"""Messages, frames or requests per slice of one client. The most expensive, subscriptions, take 0.3 ms."""

READ_SLICE_BYTES: Final = 65_536
"""Bytes after which such a slice ends, even with fewer messages."""

READ_TURN_SECONDS: Final = 0.003
"""Time for all queued slices of one loop turn, plus at most one; as much again for slices read at once."""

ACCEPTS_PER_TURN: Final = 16
"""Connections that one turn of the loop accepts at least, if as many wait."""

CONNECTION_STARTS_PER_TURN: Final = 8
"""Connections that start per turn of the loop. Each costs about 0.3 ms, from request to subscription."""

# --- transport/: HTTP requests

MAX_HELD_BODY_BYTES: Final = 65_536
"""How much of a body waits for an ASGI application that does not take it."""

BODY_PROGRESS_BYTES: Final = 32_768
"""How much of a body has to arrive in ``request_seconds``, if it is not complete by then."""

CACHED_HEADER_SECTIONS: Final = 1024
"""Cached header sections: a client sends the same fields with every request."""

MAX_CACHED_HEADER_BYTES: Final = 512
"""Maximum length of a cached header section."""

MAX_HEAD_BYTES: Final = 65_536
"""Maximum bytes of a head plus the chunk extensions and trailers of its body."""

MAX_HEADER_FIELDS: Final = 256
"""Maximum number of header fields. Each costs a call, so their count is bounded as well."""

MAX_URL_PARTS: Final = 256
"""Maximum number of path segments and query parameters, which cost by count, too."""

MAX_URL_ESCAPES: Final = 2048
"""Maximum number of percent escapes in a URL."""

CHUNKS_PER_READ: Final = 64
"""Maximum number of chunks of a body that are read per call."""

MAX_SKIPPED_BODY_BYTES: Final = 65_536
"""A connection outlives an answer that came before its request's end, if at most this much is missing."""

# --- transport/: WebSockets and the fallback transports

CACHED_HANDSHAKES: Final = 512
"""Cached handshake requests, and cached targets."""

MAX_CACHED_HANDSHAKE_BYTES: Final = 1024
"""Maximum length of such a request or target."""

CLOSE_HANDSHAKE_SECONDS: Final = 5.0
"""Time limit of the close handshake, after which the socket is aborted."""

WRITE_HIGH_WATER_BYTES: Final = 65_536
"""Size of the transport's write buffer above which a connection is slow."""

MERGING_HIGH_WATER_BYTES: Final = 4_096
"""The same for a connection with merged tokens: what waits in the transport's buffer cannot be merged."""

MERGING_UNSENT_BYTES: Final = 8_192
"""Unsent bytes that the kernel takes for such a connection (``TCP_NOTSENT_LOWAT``). By itself it takes
hundreds of kilobytes, which a phone on a bad network reads in minutes. What is under way does not count."""

MAX_POLLING_SESSIONS: Final = 20_000
"""Maximum polling sessions per process: unlike a socket, an idle session costs its client nothing."""

POLLING_HIGH_WATER_BYTES: Final = 65_536
"""Size of the client's queue above which reading from it pauses."""

POLLING_CHECK_SECONDS: Final = 3.0
"""Interval of the checks of a polling session."""

POLLING_GRACE_SECONDS: Final = 5.0
"""How long a polling session survives without a receive request, plus up to a check interval and a second."""

POLLING_HEARTBEAT_SECONDS: Final = 20.0
"""Silence after which a heartbeat is due, so that the client gets one within 25 seconds."""

# --- transport/: failing and slow peers

WRITE_STALL_SECONDS: Final = 30.0
"""Write-stall timeout: a peer that reads nothing of what was written for it for this long is cut."""

LINGERING_CLOSE_SECONDS: Final = 2.0
"""How long a peer may continue to send after its last answer."""

LINGERING_CLOSE_BYTES: Final = 4_194_304
"""How much it may still send in that time."""

# --- webhooks/: sending and reporting

WEBHOOK_IDLE_CONNECTIONS: Final = 100
"""Idle connections to webhook receivers that are kept for further requests."""

WEBHOOK_IDLE_SECONDS: Final = 30.0
"""How long an idle connection is kept."""

WEBHOOK_MAX_ANSWER_BYTES: Final = 65_536
"""How much of a response is read so that its connection can be reused. With more, it is closed."""

WEBHOOK_CLOSE_SECONDS: Final = 5.0
"""How long a sender of webhooks that closes may still send what is due."""

WEBHOOK_DROP_REPORT_SECONDS: Final = 1.0
"""Dropped webhooks within this time share one log line."""
