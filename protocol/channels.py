"""Channel names and kinds (protocol sections 4.1 and 4.5).

A kind is a set of four flags (private, presence, encrypted, cache) instead of eight classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from . import refusals
from .errors import NOT_AUTHORIZED

if TYPE_CHECKING:
    from .refusals import Refusal

MAX_NAME: Final = 200
"""Default length limit in characters, prefixes included: the limit of every server SDK."""

LONGEST_NAME: Final = 1024
"""Upper bound of every application's length limit."""

CHANNEL_NAME: Final = re.compile(r"[A-Za-z0-9_\-=@,.;]+")
"""Use with ``fullmatch``."""

SERVER_TO_USER: Final = "#server-to-user-"

SOCKET_ID: Final = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")
"""Use with ``fullmatch``. ASCII digits only, as every SDK checks, and bounded."""


class Key(NamedTuple):
    """A channel of an application."""

    app_id: str
    channel: str


class ChannelError(ValueError):
    """A refused subscription, such as an invalid channel name.

    :ivar type: and :ivar status: those of section 4.5.
    :ivar refusal: for the log, with ``detail``, which is the text unless that repeats what was signed.
    """

    def __init__(
        self,
        type_: str,
        reason: str,
        status: int = NOT_AUTHORIZED.code,
        refusal: Refusal = refusals.BAD_CHANNEL_NAME,
        detail: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.type = type_
        self.status = status
        self.refusal = refusal
        self.detail = reason if detail is None else detail


class Channel(NamedTuple):
    """A parsed channel name. ``private`` is true for every kind that needs a signature."""

    name: str
    private: bool = False
    presence: bool = False
    encrypted: bool = False
    cache: bool = False

    @classmethod
    def parse(cls, name: str, max_name: int = MAX_NAME) -> Channel:
        """Derive the kind from the name. Prefixes are anchored and case-sensitive, longest first.

        :raises ChannelError: too long, or with a character that is not allowed. Also for names with
           ``#server-to-user-``: clients cannot subscribe to them by name (section 7).
        """
        if len(name) > max_name:
            raise ChannelError("LimitReached", f"The channel name is longer than {max_name} characters")
        if not CHANNEL_NAME.fullmatch(name):
            raise ChannelError(
                "InvalidChannel", "The channel name has characters other than A-Za-z0-9_-=@,.;"
            )
        for prefix, flags in _PREFIXES:
            if name.startswith(prefix):
                return cls(name, *flags)
        return cls(name)


# prefix -> private, presence, encrypted, cache
_PREFIXES: Final = (
    ("private-encrypted-cache-", (True, False, True, True)),
    ("private-encrypted-", (True, False, True, False)),
    ("private-cache-", (True, False, False, True)),
    ("private-", (True, False, False, False)),
    ("presence-cache-", (True, True, False, True)),
    ("presence-", (True, True, False, False)),
    ("cache-", (False, False, False, True)),
)
