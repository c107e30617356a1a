"""Limits, timeouts, batch sizes and intervals of the worker that are not settings, by room.

Numbers that are part of a format or of an algorithm stand where they are used.
"""

from typing import Final

# --- The process and its clients of Redis

REDIS_TIMEOUT_SECONDS: Final = 5.0
"""Time limit of connecting, and of an answer to a command that does not block."""

REDIS_HEALTH_CHECK_SECONDS: Final = 15
"""Idle time after which a connection is checked with a PING before its next use."""

DIRECTORY_LEAVE_SECONDS: Final = 2
"""How long a stop tries to leave the directory; an entry that is left behind expires."""

CANCELLED_TASKS_SECONDS: Final = 1
"""How long cancelled tasks have to end before the process exits."""

REDIS_POOL_CONNECTIONS: Final = 64
"""Maximum connections per server. When all are in use, callers wait for one."""

REDIS_READ_SECONDS: Final = 30.0
"""Time limit of a blocking read. Far above any BLOCK: it only ends reads from a server that is gone."""

# --- jobs/: queues, leases and cancels

CANCEL_POLL_TIMEOUT_SECONDS: Final = 0.25
"""How long a poll of the cancel flags waits for the servers. The next poll returns later answers."""

CANCEL_POLL_SECONDS: Final = 0.25
"""Interval of the polls of the cancel flags: half of the time in which a cancel takes effect."""

RENEWALS_PER_LEASE: Final = 3
"""How often a lease is renewed within its duration: two renewals may fail before it is lost."""

MAX_JOB_DELIVERIES: Final = 10
"""A job that has raised an error this often moves to the dead letters: the fault is in the job."""

MODEL_CLOSE_SECONDS: Final = 10.0
"""How long a request to the model may take to close. Its reply has ended, but keeps its slot until then."""

TAKE_OVER_SECONDS: Final = 1.0
"""Interval of the searches for expired leases."""

DRAIN_SETTLE_SECONDS: Final = 1.0
"""After the drain deadline: time to hand jobs over to other workers, and for cancelled tasks to end."""

DEAD_LETTERS_PER_READ: Final = 16
"""Letters that are read at once; each has up to 8 MiB."""

QUEUE_POLL_MS: Final = 100
"""Interval at which the less urgent queues are polled while all are empty; the first is read blocking."""

QUEUE_BLOCK_MS: Final = 1000
"""How long a read waits for a new job. A drain waits for it too, since a cancelled read strands jobs."""

COLLECT_BATCH: Final = 16
"""Jobs that a worker with ``worker.fair`` reads at once to put them in order; each has up to 8 MiB."""

COLLECTS_PER_CLAIM: Final = 128
"""Such reads before a claim. Jobs beyond them are put in order later, so a claim never waits for long."""

STRAY_MS: Final = 1000
"""A job that was read this long ago and is in no order was read by a process that died meanwhile."""

CHECKED_PER_LOOK: Final = 100
"""Entries of the order that are compared with the stream at once, with each search for expired leases."""

POSITIONS_SECONDS: Final = 1.0
"""Interval of the positions that one worker per queue publishes; one message gets no more than one in it."""

POSITIONS_LISTED: Final = 200
"""Jobs whose positions are looked up, in some milliseconds of Redis. Those behind them hear later."""

POSITIONS_PER_LOOK: Final = 100
"""Positions that are published in one interval: of the jobs that have waited longest for theirs."""

REPORTER_MS: Final = 3000
"""Time after which another worker publishes the positions."""

MAX_DEAD_LETTERS: Final = 10_000
"""Dead letters that a queue keeps; with more, the oldest are deleted."""

CONSUMER_IDLE_MS: Final = 3_600_000
"""A live consumer reads every second; one that has not read for an hour is removed."""

DEAD_LETTERS_LISTED: Final = 20
"""Default of ``--limit``: dead letters listed per queue."""

# --- observability/: metrics

METRICS_BIND_RETRY_SECONDS: Final = 1.0
"""Pause before the next attempt to bind the port of the metrics."""

METRICS_CONNECTIONS: Final = 8
"""Maximum number of metrics connections. For one more, the oldest without a complete request is cut."""

METRICS_REQUEST_SECONDS: Final = 5.0
"""Time limit of such a connection, from accepting it to the end of the answer."""

METRICS_ACCEPT_PAUSE_SECONDS: Final = 0.2
"""Pause of accepting at the limit of open files, where accepting would fail in a busy loop."""

# --- providers/: requests to a model

MODEL_READ_SECONDS: Final = 30.0
"""Minimum read timeout; longer if the worker waits longer for text."""

MODEL_POOL_SECONDS: Final = 5.0
"""Time to get a connection of the pool, beyond the time to connect: aiohttp counts both together."""

MODEL_USAGE_SECONDS: Final = 2.0
"""How long to wait for the usage after the model has ended. Some servers do not end the stream."""

MODEL_STREAM_END_SECONDS: Final = 0.2
"""How long to wait for the end of the response after ``[DONE]``: only then can the connection be reused."""

MODEL_MAX_ERROR_BYTES: Final = 65_536
"""Maximum bytes that are read of an error response."""

MAX_MODEL_NAME_CHARACTERS: Final = 200
"""Maximum length of the model's name that is taken from its response."""

SSE_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of one event. Providers send a few hundred bytes; a tool's result may be a long page."""

MAX_STEP_CONTENT_CHARACTERS: Final = 8_000_000
"""Maximum size of what the model says in one request with tools, in which it may read many long pages."""

MAX_TOOL_INPUT_CHARACTERS: Final = 1_000_000
"""Maximum size of a tool call's input: more than a model can write in one request."""

MAX_TOOL_NAME_CHARACTERS: Final = 200
"""Maximum length of a tool's name, and of the id of a call. Those of the API have 64 characters at most."""

MAX_CONTENT_DEPTH: Final = 100
"""How deeply what the model says may be nested. Readers of JSON give up at 1,000 levels, or earlier."""

MAX_STOP_REASON_CHARACTERS: Final = 64
"""How much of a stop reason is kept: its column in the database has no more room."""

MAX_USAGE_TOKENS: Final = 2**31 - 1
"""Maximum of each number of tokens of a reply. The columns in the database have no more room."""

MAX_REASON_CHARACTERS: Final = 300
"""How much of a provider's message is logged."""

MAX_PARALLEL_CALLS: Final = 128
"""Maximum number of tool calls in one answer: a server's mistake could begin one with each piece."""

BREAKER_FIRST_PAUSE_SECONDS: Final = 1.0
"""First pause after an overload, where the provider gives no length. It doubles each time."""

BREAKER_LONGEST_PAUSE_SECONDS: Final = 30.0
"""Longest such pause."""

BREAKER_LONGEST_REQUESTED_SECONDS: Final = 60.0
"""Upper bound on a pause whose length the provider gives."""

BREAKER_CLOSED_SECONDS: Final = 0.1
"""For how long a process believes that the circuit breaker is closed, unless it opens it itself."""

BREAKER_PROBE_SECONDS: Final = 1.0
"""Interval of the requests that probe a provider after its pause."""

# --- providers/: the scripted provider, and the contract that each provider is checked against

SCRIPTED_TOKENS_PER_SECOND: Final = 30
"""Default of ``rate`` of a scripted reply."""

SCRIPTED_MAX_TOKENS: Final = 100_000
"""Maximum number of events of a scripted reply, tokens included: a user may write the script."""

SCRIPTED_MAX_TOKENS_PER_SECOND: Final = 100_000
"""Maximum of the scripted ``rate``."""

SCRIPTED_MAX_FAULTS: Final = 20
"""Maximum number of faults of a scripted reply."""

SCRIPTED_MAX_WORDS: Final = 200
"""Maximum number of words of a script, and so of its steps and calls."""

SCRIPTED_MAX_WORD_CHARACTERS: Final = 20_000
"""Maximum length of a word, such as a call with its input."""

SCRIPTED_INPUT_PIECE_CHARACTERS: Final = 8
"""Length of the pieces in which a scripted call writes its input."""

SCRIPTED_MAX_ECHO_CHARACTERS: Final = 20_000
"""How much of the tools' outputs ``echo`` repeats."""

CONTRACT_STEP_SECONDS: Final = 5.0
"""Time limit of each step of a contract check."""

CONTRACT_CONCURRENT_REQUESTS: Final = 3
"""Requests that a contract check sends to a provider at once."""

# --- replies/: the way of a token

CALLS_PER_PIPELINE: Final = 64
"""Maximum number of calls in one pipeline. A full one is sent at once."""

PIPELINE_SECONDS: Final = 0.008
"""Interval of the pipelines to one server, and so the longest that a call waits for others."""

TOKENS_PER_REPAIR: Final = 256
"""Tokens that one call of a log repair writes again."""

MODEL_RETRY_FIRST_SECONDS: Final = 0.5
"""First pause between two requests, where the provider does not say how long to wait. It doubles."""

MODEL_RETRY_LONGEST_SECONDS: Final = 8.0
"""Longest such pause."""

MODEL_EVENTS_AHEAD: Final = 64
"""Events that may wait for the writer. At the bound no further event is read: back-pressure on the model."""

OVERLAP_WINDOW_CHARACTERS: Final = 2000
"""Characters of the old text that are searched, and so the maximum that is held back."""

OVERLAP_ANCHOR_CHARACTERS: Final = 60
"""Maximum characters that the model is asked to repeat."""

OVERLAP_MIN_CHARACTERS: Final = 4
"""Minimum letters and digits of an overlap other than the anchor."""

MAX_TOKEN_CHARACTERS: Final = 4096
"""Maximum characters in one token event; longer pieces are split."""

# --- store/: the database

SQLITE_BUSY_SECONDS: Final = 5.0
"""How long SQLite waits for a lock that another process holds."""

SQLITE_UPGRADE_ATTEMPTS: Final = 12
"""How often SQLite's wait for a lock is repeated: another process may be upgrading a big file."""

# --- supervisor/: the directory of workers and their control

SHOWN_REASON_CHARACTERS: Final = 80
"""How much of a dead letter's reason a list shows."""

CONTROL_POLL_SECONDS: Final = 0.2
"""Interval at which ``legato workers`` looks whether its order is carried out."""

REPORT_SECONDS: Final = 0.5
"""Interval of a worker's reports to the directory."""

REPORT_EXPIRY_SECONDS: Final = 10
"""Time after its last report until a worker disappears."""

ORDER_EXPIRY_SECONDS: Final = 86_400
"""How long an order is kept for a process that does not report."""

# --- agents/: tools, approvals, handlers

AGENT_STEPS: Final = 10
"""Default of an agent's ``max_steps``: requests to the model for one reply."""

AGENT_MAX_STEPS: Final = 100
"""Maximum of ``max_steps``."""

AGENT_MAX_TOOLS: Final = 128
"""Maximum number of tools of an agent, those of the provider included. OpenAI's API refuses more."""

AGENT_SYSTEM_SECONDS: Final = 30.0
"""Time limit of an agent's function that answers the system prompt."""

APPROVAL_SECONDS: Final = 259_200.0
"""Default of a tool's ``approval_seconds``: three days."""

APPROVAL_MAX_SECONDS: Final = 31_536_000.0
"""Maximum of ``approval_seconds``: a year."""

APPROVAL_MAX_INPUT_BYTES: Final = 65_536
"""Maximum length of the input of a call that needs an approval, as JSON. A longer one is not made."""

TOOL_SECONDS: Final = 30.0
"""Default time limit of a tool call."""

TOOL_OVERRUN_SECONDS: Final = 0.5
"""How much later than its time limit a call may end before the log says that something blocks the process."""

TOOL_MAX_CALLS: Final = 32
"""Maximum number of calls in one step. The model is told that further ones were not made."""

TOOL_MAX_OUTPUT_BYTES: Final = 100_000
"""Maximum length of a tool's result as JSON. The model is told of a longer one instead."""

TOOL_MAX_ERROR_CHARACTERS: Final = 2000
"""How much of a tool's error the model is told."""

TOOL_MAX_CITATIONS: Final = 50
"""Maximum number of citations of one call."""

CITATION_MAX_CHARACTERS: Final = 2000
"""Maximum length of each value of a citation that a tool names."""

TOOL_MAX_SCHEMA_BYTES: Final = 32_768
"""Maximum length of the schema of one tool."""

TOOL_MAX_DESCRIPTION_CHARACTERS: Final = 8000
"""How much of a tool's docstring the model is told."""

MAX_SHOWN_BYTES: Final = 8000
"""Maximum length of a tool's input or output in an event. Readers get no longer one."""

HANDLER_SILENCE_SECONDS: Final = 86_400.0
"""How long a handler may yield nothing: ``worker.timeout`` ends it before."""

HANDLER_END_SECONDS: Final = 10.0
"""How long a handler may take to end behind its ``Final``: what it cleans up by then."""

HANDLER_MAX_CHARACTERS: Final = 8_000_000
"""Maximum size of all that a handler yields in one reply."""

HANDLER_MAX_PAUSES: Final = 32
"""How often the model may pause in an answer to a handler, and be asked to go on."""

HANDLER_MAX_ONCE_BYTES: Final = 1_000_000
"""Maximum length of a stored value of a handler as JSON."""

HANDLER_MAX_ONCE_KEY_CHARACTERS: Final = 200
"""Maximum length of the key of such a value."""

AGENT_MAX_ERROR_CHARACTERS: Final = 500
"""How much is told of an error by which an agent cannot be imported."""

AGENT_RELOAD_POLL_SECONDS: Final = 0.5
"""Interval at which the files of agents are looked at with ``--reload``."""

WAITING_SWEEP_SECONDS: Final = 5.0
"""Interval at which a worker looks for parked replies whose approval is overdue."""

WAITING_SWEEP_COUNT: Final = 20
"""Maximum number of parked replies that one look queues again."""

WAITING_POSTPONE_MS: Final = 10_000
"""After which time an overdue reply is looked at again that some worker has."""

# --- store/: the path through a conversation, and titles

PATH_TURNS_PER_READ: Final = 256
"""Turns of a conversation that one query looks at, without their texts. A history has 100 by default."""

PATH_MAX_READS: Final = 64
"""Maximum number of such queries for one history. Most need one; branches that were left early need more."""

TITLE_SECONDS: Final = 20.0
"""Time limit of the request for a title."""

TITLE_MAX_TOKENS: Final = 64
"""Maximum number of tokens of that request's answer."""

TITLE_MAX_CHARACTERS: Final = 2000
"""How much of the message, and of its reply, the model is told for a title."""

TITLES_AT_ONCE: Final = 4
"""Maximum number of such requests of one process. Further conversations keep their first words."""

TITLE_CLOSE_SECONDS: Final = 1.0
"""How long the end of the process waits for titles to be published."""
