"""Limits of the log that are not settings."""

from typing import Final

REFUSAL_LINES: Final = 10
"""Log lines about refusals of one reason within a period. The rest is counted."""

REFUSAL_SECONDS: Final = 10.0
"""That period."""

REFUSAL_FIELD_CHARACTERS: Final = 200
"""How much of a name that a client has sent such a line shows."""

SHOWN_KEY_CHARACTERS: Final = 4
"""How much of a key that a client has sent such a line shows."""

UNHEARD_CHANNELS: Final = 10
"""How many channels without a subscriber one line names."""

CUT_LOG_SECONDS: Final = 10.0
"""Minimum time between two log lines about cut connections: one fault may hit thousands."""
