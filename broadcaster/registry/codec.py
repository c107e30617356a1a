"""How the registry's changes, entries and answers are encoded for Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from legato.broadcaster.channels.subscriber import Key
from legato.protocol import presence

from .base import Joined, Left
from .lease import OPEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from legato.protocol.names import Names
    from legato.protocol.presence import Member

    NodeEntry = tuple[str, bytes | str]
    """A node's name, and an entry that is listed under it."""


class RegistryOwner(NamedTuple):
    """What the registry needs of its node.

    :ivar lapsed: called when the others have declared this node dead and take back what it has added. The
        node has to leave everything it has joined; it goes on under another name.
    :ivar holding: whether departures of the application with this id are held back (section 11.4).
    :ivar mine: everything that this node has joined and not left: channel, socket id, member.
    :ivar state: what the other nodes are told about this one, see :mod:`.lease`.
    """

    lapsed: Callable[[], None]
    holding: Callable[[str], bool] = lambda _: False
    mine: Callable[[], Iterable[tuple[Key, str, Member | None]]] = tuple
    state: Callable[[], str] = lambda: OPEN


class Change(NamedTuple):
    """One call of a script, or changed entries alone, and what to do with the answer.

    :ivar lists: entries to add before the call; a crash in between loses nothing.
    :ivar forgets: entries to remove after it.
    :ivar call: the unique name under which the script keeps an answer that must not be lost; may be empty.
    """

    script: str
    key: Key
    arguments: tuple[str | bytes | int, ...]
    done: Callable[[Any], None]
    lists: tuple[NodeEntry, ...] = ()
    forgets: tuple[NodeEntry, ...] = ()
    call: str = ""


class Hold(NamedTuple):
    """A departure that is held back: by which name of this node, and the entry by which others find it."""

    holder: str
    entry: NodeEntry


def keys_of(key: Key, names: Names) -> tuple[str, ...]:
    """The KEYS of the scripts."""
    kinds = (names.subscriptions_key, names.users_key, names.members_key, names.bus_channel, names.held_key)
    return tuple(kind(*key) for kind in kinds)


def encode_entry(key: Key, socket_id: str, member: Member | None) -> bytes:
    """Encode an entry: application, socket, length of the channel name; then the name, and the member if any.

    Shorter than JSON, since Redis keeps one per subscription. Name and member may contain any character.
    """
    channel = key.channel.encode()
    head = f"{key.app_id}\n{socket_id}\n{len(channel)}\n".encode()
    return head + channel + (b"" if member is None else presence.encode_member(member))


def decode_entry(entry: bytes | str) -> tuple[Key, str, Member | None]:
    """Undo :func:`encode_entry`."""
    if isinstance(entry, str):
        entry = entry.encode()
    app_id, socket_id, size, rest = entry.split(b"\n", 3)
    channel, encoded = rest[: int(size)], rest[int(size) :]
    member = presence.decode_member(encoded) if encoded else None
    return Key(app_id.decode(), channel.decode()), socket_id.decode(), member


def decode_joined(answer: list[Any]) -> Joined:
    if answer[0] == b"full":
        return Joined(0, full=True)
    _, count, first, first_of_user, members = answer
    users = tuple(presence.decode_member(one) for one in members)
    return Joined(
        count, bool(first), bool(first_of_user), users, back=first == 2, user_back=first_of_user == 2
    )


def decode_left(answer: list[Any]) -> Left:
    count, last, last_of_user = answer
    return Left(count, bool(last), bool(last_of_user), held=last == 2)
