"""Signed-in users and watchlists (protocol section 7)."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from .channels import SERVER_TO_USER
from .presence import MAX_USER_ID, MAX_USER_INFO, Member
from .text import decode_json

MAX_WATCHLIST: Final = 100

_encoder: Final = msgspec.json.Encoder()


class UserError(ValueError):
    """An invalid ``user_data``. The text may be sent to the client."""


class User(NamedTuple):
    """A signed-in user. ``watchlist`` has at most :data:`MAX_WATCHLIST` ids; ``cut``: there were more."""

    id: str
    user_info: bytes = b""
    watchlist: tuple[str, ...] = ()
    cut: bool = False

    def member(self) -> Member:
        """The user as a member of a presence channel subscribed without channel_data (section 5.1)."""
        return Member(self.id, self.user_info)


class _UserData(msgspec.Struct, frozen=True):
    id: int | str
    user_info: msgspec.Raw = msgspec.Raw(b"")
    watchlist: tuple[str, ...] = ()


_decoder: Final = msgspec.json.Decoder(_UserData)


def parse_user(user_data: str, max_user_info: int = MAX_USER_INFO) -> User:
    """Parse the user in a signed ``user_data``. Escapes of lone surrogates become U+FFFD.

    :raises UserError: it is invalid, or exceeds a limit of section 15.
    """
    try:
        data = decode_json(_decoder, user_data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UserError("The user_data is not JSON of the form {id, user_info?, watchlist?}") from error
    name, info = str(data.id), bytes(data.user_info)
    if not 1 <= len(name) <= MAX_USER_ID:
        raise UserError(f"The user id must have 1 to {MAX_USER_ID} characters")
    if len(info) > max_user_info:
        raise UserError(f"The user_info is larger than {max_user_info} bytes")
    distinct = tuple(dict.fromkeys(data.watchlist))
    return User(name, info, distinct[:MAX_WATCHLIST], len(distinct) > MAX_WATCHLIST)


def user_channel(user_id: str) -> str:
    """The channel of a user's events, to which clients cannot subscribe by name (section 7.2)."""
    return SERVER_TO_USER + user_id


def watch_channel(user_id: str) -> str:
    """The internal channel for the watchers of a user; clients never see it."""
    return f"#watch-{user_id}"


def signin_success(user_data: str) -> bytes:
    """The answer to a valid ``pusher:signin``, with ``user_data`` unchanged (section 7.1)."""
    data = _encoder.encode({"user_data": user_data}).decode()
    return _encoder.encode({"event": "pusher:signin_success", "data": data})


def watchlist_events(**user_ids: list[str]) -> bytes | None:
    """The event with ``online`` and ``offline`` ids for a watcher; None without any (section 7.4)."""
    events = [{"name": name, "user_ids": ids} for name, ids in user_ids.items() if ids]
    if not events:
        return None
    data = _encoder.encode({"events": events}).decode()
    return _encoder.encode({"event": "pusher_internal:watchlist_events", "data": data})
