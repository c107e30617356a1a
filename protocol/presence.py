"""Members of presence channels (protocol section 5).

A member is a user; a user may have several connections. Members are identified by the string form of their
id, and the id keeps the JSON type that the first connection gave it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from . import errors, refusals
from .channels import ChannelError
from .messages import channel_event
from .text import decode_json

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_USER_ID: Final = 128
"""Characters."""

MAX_USER_INFO: Final = 1024
"""Bytes of JSON."""


class Member(NamedTuple):
    """A member. ``user_info`` is unchanged JSON, empty if absent."""

    user_id: int | str
    user_info: bytes = b""

    @property
    def id(self) -> str:
        """The id in string form, which identifies the member."""
        return str(self.user_id)


class _ChannelData(msgspec.Struct, frozen=True):
    user_id: int | str
    user_info: msgspec.Raw = msgspec.Raw(b"")


_decoder: Final = msgspec.json.Decoder(_ChannelData)
_member_decoder: Final = msgspec.json.Decoder(tuple[int | str, msgspec.Raw, bool])
_encoder: Final = msgspec.json.Encoder()


def parse_member(channel_data: str, max_user_info: int = MAX_USER_INFO) -> Member:
    """Parse the member in a signed ``channel_data``; other keys are ignored (section 5.1).

    Escapes of lone surrogates become U+FFFD: every member receives the stored JSON, and some JSON readers
    refuse them.

    :raises ChannelError: it is invalid, or exceeds a limit of section 15.
    """
    try:
        data = decode_json(_decoder, channel_data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = 'Invalid channel_data: expected {"user_id": text or number}'
        raise ChannelError("AuthError", reason, 401, refusals.BAD_CHANNEL_DATA) from error
    return check_member(Member(data.user_id, bytes(data.user_info)), max_user_info)


def check_member(member: Member, max_user_info: int = MAX_USER_INFO) -> Member:
    """Check the limits of a member.

    :raises ChannelError: it exceeds one.
    """
    if not 1 <= len(member.id) <= MAX_USER_ID:
        raise _over_limit(f"user_id must have 1 to {MAX_USER_ID} characters")
    if len(member.user_info) > max_user_info:
        raise _over_limit(f"user_info is larger than {max_user_info} bytes")
    return member


def _over_limit(reason: str) -> ChannelError:
    return ChannelError("LimitReached", reason, errors.OVER_LIMIT, refusals.BAD_CHANNEL_DATA)


def roster_data(members: Collection[Member]) -> str:
    """``data`` of ``subscription_succeeded`` on a presence channel, of distinct members (section 5.2)."""
    users = {member.id: _raw(member) for member in members}
    presence = {"ids": [member.user_id for member in members], "hash": users, "count": len(users)}
    return _encoder.encode({"presence": presence}).decode()


def member_added(channel: str, member: Member) -> bytes:
    """Sent to the other members when a user's first connection joins (section 5.3)."""
    data: dict[str, Any] = {"user_id": member.user_id}
    if member.user_info:
        data["user_info"] = msgspec.Raw(member.user_info)
    return channel_event("pusher_internal:member_added", channel, _encoder.encode(data).decode())


def member_removed(channel: str, member: Member) -> bytes:
    """Sent to the other members when a user's last connection leaves (section 5.3)."""
    data = _encoder.encode({"user_id": member.user_id}).decode()
    return channel_event("pusher_internal:member_removed", channel, data)


class _MemberEvent(msgspec.Struct):
    event: str
    data: str


class _Removed(msgspec.Struct):
    user_id: int | str


_event_decoder: Final = msgspec.json.Decoder(_MemberEvent)
_removed_decoder: Final = msgspec.json.Decoder(_Removed)
_REMOVED: Final = b'{"event":"pusher_internal:member_removed"'


def removed_user(payload: bytes) -> str | None:
    """The :attr:`Member.id` in a message of :func:`member_removed`; None for any other message."""
    if not payload.startswith(_REMOVED):
        return None
    try:
        return str(_removed_decoder.decode(_event_decoder.decode(payload).data).user_id)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _raw(member: Member) -> msgspec.Raw:
    return msgspec.Raw(member.user_info or b"null")


def encode_member(member: Member) -> bytes:
    """Encode a member for Redis."""
    return _encoder.encode([member.user_id, _raw(member), bool(member.user_info)])


def decode_member(data: bytes) -> Member:
    """Decode the result of :func:`encode_member`."""
    user_id, user_info, given = _member_decoder.decode(data)
    return Member(user_id, bytes(user_info) if given else b"")
