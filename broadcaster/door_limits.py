"""Limits, timeouts and intervals of the doors that are not settings."""

from typing import Final

LOG_READ_ENTRIES: Final = 256
"""Entries per reading of a log. A reader that joins late takes several."""

LOG_TAIL_ENTRIES: Final = 256
"""Newest entries of a reply that its readers share. One that is further behind reads the log itself."""

LOG_READ_PATIENCE_SECONDS: Final = 20.0
"""How long the log of a running reply may be unreadable, before its readers give up."""

LISTEN_SECONDS: Final = 5.0
"""How long a new reader waits for the bus to deliver its channel."""

KEEP_ALIVE_SECONDS: Final = 15.0
"""Silence after which a door writes a comment, so that no proxy takes its connection for dead."""

LOG_SILENCE_SECONDS: Final = 5.0
"""Silence of a running reply after which its log is read all the same: the bus may have lost a message."""

BREAK_PAUSE_SECONDS: Final = 0.25
"""Pause before a failure breaks a connection off: a browser drops what its page has not read yet."""

LONG_POLL_SECONDS: Final = 25
"""How long a long-poll of a Durable Stream waits for news."""

STREAM_SECONDS: Final = 60
"""How long one answer with the events of a Durable Stream lasts: the client comes back for more."""

CHAT_SECONDS: Final = 86_400
"""How long the newest reply of a chat is known by the chat's id."""

REPLAY_SECONDS: Final = 60
"""How long after its end a reply that nobody has read to the end is still streamed to who resumes a chat."""

READ_TO_END_SECONDS: Final = 2 * REPLAY_SECONDS
"""How long it is known that a reply was read to the end."""
