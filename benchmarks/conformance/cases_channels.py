"""Section 4.1 to 4.3: names of channels, subscribing, signatures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from legato.protocol import signatures

from .context import member
from .outcome import case

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client import Socket
    from .context import CaseContext

KINDS: Final = (
    ("private-", "private"),
    ("private-cache-", "private cache"),
    ("private-encrypted-", "encrypted"),
    ("private-encrypted-cache-", "encrypted cache"),
    ("presence-", "presence"),
    ("presence-cache-", "presence cache"),
)
"""Every kind that needs a signature."""

PUBLIC: Final = (
    "cache-",
    "cache-private-",
    "cache-presence-",
    "private",
    "privatefoo",
    "presence",
    "presencefoo",
    "cachefoo",
    "xprivate-",
    "xprivate-cache-",
    "xpresence-",
    "Private-",
    "PRESENCE-",
    "client-",
    "pusher-",
)
"""Prefixes that need no signature, among them some that resemble those that do."""

LETTERS: Final = "ABCXYZabcxyz0189_-=@,.;"

BAD_NAMES: Final = (
    ("a space", "a b"),
    ("a slash", "a/b"),
    ("a colon", "a:b"),
    ("a hash", "a#b"),
    ("a star", "a*"),
    ("a letter that is not ASCII", "ä"),
    ("a line feed at the end", "a\n"),
    ("a NUL", "a\0"),
    ("a quotation mark", 'a"b'),
    ("braces", "{a}"),
)

SUCCEEDED: Final = "pusher_internal:subscription_succeeded"


def data_for(t: CaseContext, channel: str) -> str | None:
    """``channel_data`` where it is needed."""
    return member(t.name()) if channel.startswith("presence-") else None


async def public(t: CaseContext, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix)
    await socket.send("pusher:subscribe", {"channel": channel, "auth": ""})
    await socket.expect(SUCCEEDED, channel)


for prefix in ("", *PUBLIC):
    shown = f"{prefix}…" if prefix else "a name without a prefix"
    case("4.1", f"{shown}: anybody may subscribe")(partial(public, prefix=prefix))


async def let_in(t: CaseContext, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix)
    await t.subscribe(socket, channel, data_for(t, channel))


async def kept_out(t: CaseContext, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix)
    for auth in ("", f"{t.app.key}:{'0' * 64}"):
        await t.ask(socket, channel, data_for(t, channel), auth=auth)
        await t.refusal(socket, channel)
    await t.is_out(socket, channel)


for prefix, kind in KINDS:
    case("4.1", f"{prefix}… ({kind}): accepted with a signature")(partial(let_in, prefix=prefix))
    case("4.1", f"{prefix}… ({kind}): refused without a signature")(partial(kept_out, prefix=prefix))


@case("4.1", "a name may have every allowed character")
async def all_characters(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name(LETTERS)
    await t.subscribe(socket, channel)
    await t.publish(channel, "e", "x")
    await socket.expect("e", channel)


async def long_name(t: CaseContext, prefix: str) -> None:
    socket = await t.connect()
    channel = t.name(prefix).ljust(164, "x")
    await t.subscribe(socket, channel, data_for(t, channel))
    await t.publish(channel, "e", "x")


for prefix in ("", "private-encrypted-cache-", "presence-"):
    case("4.1", f"164 characters are allowed: {prefix}…")(partial(long_name, prefix=prefix))


@case("4.1", "a name longer than 200 characters is refused")
async def too_long(t: CaseContext) -> str:
    socket = await t.connect()
    channel = t.name().ljust(201, "x")
    await t.ask(socket, channel)
    return str(await t.refusal(socket, channel))


async def bad_name(t: CaseContext, name: str) -> str:
    socket = await t.connect()
    await t.ask(socket, name)
    return str(await t.refusal(socket, name))


for name, channel in (*BAD_NAMES, ("nothing", "")):
    case("4.1", f"refused: a name with {name}")(partial(bad_name, name=channel))


@case("4.1", "# is reserved: other names with it are refused")
async def reserved(t: CaseContext) -> None:
    socket = await t.connect()
    for channel in ("#", f"#{t.name()}", "#server-to-user-", "#private-x"):
        await t.ask(socket, channel)
        await t.refusal(socket, channel)


async def public_with(t: CaseContext, more: dict[str, Any]) -> None:
    socket, channel = await t.connect(), t.name()
    await socket.send("pusher:subscribe", {"channel": channel} | more)
    await socket.expect(SUCCEEDED, channel)


NOT_GIVEN: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("auth absent", {}),
    ("auth empty", {"auth": ""}),
    ("auth null", {"auth": None}),
    ("channel_data null", {"auth": None, "channel_data": None}),
    ("unknown keys", {"shared_secret": "x", "tags": {"a": 1}}),
)
for name, more in NOT_GIVEN:
    case("4.2", f"a public channel with {name}")(partial(public_with, more=more))


async def private_without_data(t: CaseContext, channel_data: str | None) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.ask(socket, channel, auth=t.auth(socket, channel), channel_data=channel_data)
    await socket.expect(SUCCEEDED, channel)


for name, channel_data in (("null", None), ("empty", "")):
    case("4.2", f"the signature does not cover {name} channel_data")(
        partial(private_without_data, channel_data=channel_data)
    )


@case("4.3", "channel_data of a private channel is optional, and signed if given")
async def private_with_data(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("private-")
    await t.subscribe(socket, channel, '{"user_id":"7"}')
    other = t.name("private-")
    await t.ask(socket, other, '{"user_id":"7"}', auth=t.auth(socket, other))
    await t.refusal(socket, other)
    await t.is_out(socket, other)


@case("4.3", "channel_data is signed as it was received, not encoded anew")
async def exact_channel_data(t: CaseContext) -> None:
    socket = await t.connect()
    for channel_data in (
        '{ "user_id" : "7",\n"user_info":{"n":"\u00e4\U0001f600"} }',
        '{"user_id":"\\u0037"}',
    ):
        await t.subscribe(socket, t.name("presence-"), channel_data)


def _wrong(change: Callable[[CaseContext, Socket, str], str]) -> Callable[[CaseContext], Any]:
    async def run(t: CaseContext) -> str:
        socket, channel = await t.connect(), t.name("private-")
        await t.ask(socket, channel, auth=change(t, socket, channel))
        message = await t.refusal(socket, channel)
        await t.is_out(socket, channel)
        return str(message)

    return run


def _signature(t: CaseContext, socket: Socket, channel: str) -> str:
    return t.auth(socket, channel).partition(":")[2]


WRONG: Final[tuple[tuple[str, Callable[[CaseContext, Socket, str], str]], ...]] = (
    ("of another channel", lambda t, s, c: t.auth(s, f"{c}x")),
    ("of the channel without its prefix", lambda t, s, c: t.auth(s, c.removeprefix("private-"))),
    (
        "of another socket",
        lambda t, s, c: f"{t.app.key}:{signatures.sign(t.app.secret, f'1.{s.socket_id}:{c}')}",
    ),
    ("by another secret", lambda t, s, c: t.auth(s, c, app=t.app._replace(secret="x"))),  # noqa: S106 - wrong
    ("with another key", lambda t, s, c: t.auth(s, c, app=t.app._replace(key=t.name()))),
    ("with an empty key", lambda t, s, c: t.auth(s, c, app=t.app._replace(key=""))),
    ("without the key", _signature),
    ("that is truncated", lambda t, s, c: t.auth(s, c)[:-1]),
    ("with trailing characters", lambda t, s, c: f"{t.auth(s, c)}0"),
    ("with characters that are not ASCII", lambda t, s, c: f"{t.app.key}:\u00e4{_signature(t, s, c)[1:]}"),
    ("that is empty", lambda t, _s, _c: f"{t.app.key}:"),
    (
        "of a user",
        lambda t, s, c: f"{t.app.key}:{signatures.sign(t.app.secret, f'{s.socket_id}::user::{c}')}",
    ),
)
for name, change in WRONG:
    case("4.3", f"refused: a signature {name}")(_wrong(change))


@case("4.3", "refused: a signature that was made for another socket")
async def stolen(t: CaseContext) -> None:
    one, two = await t.sockets(2)
    channel = t.name("private-")
    await t.ask(two, channel, auth=t.auth(one, channel))
    await t.refusal(two, channel)
    await t.is_out(two, channel)


@case("4.3", "refused: channel_data that was changed after signing")
async def changed_data(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name("presence-")
    await t.ask(socket, channel, member("8"), auth=t.auth(socket, channel, member("7")))
    await t.refusal(socket, channel)
    await t.ask(socket, channel, member("8"), auth=t.auth(socket, channel))
    await t.refusal(socket, channel)
