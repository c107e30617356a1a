"""A small Pusher server for the suite's own tests: right without faults, wrong in one way with each.

Plain rather than fast, and with nothing taken from the server of this project: it is a second reading of the
protocol. This is its state and what messages do to it; `broken` has the sockets.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from legato.protocol.signatures import sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = re.compile(r"[A-Za-z0-9_\-=@,.;]{1,200}")
TO_USER = "#server-to-user-"
SIGNED = ("private-", "presence-")
CACHED = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")
ENABLE = "To send client events, you must enable this feature in the Settings page of your dashboard."


@dataclass(frozen=True)
class App:
    id: str
    key: str
    secret: str
    disabled: bool = False
    quota: int = 0
    strict: bool = False
    client_events: bool = True


@dataclass(eq=False)
class Peer:
    """A connection. What goes out waits in `outbox`: texts, and a close as (code, reason)."""

    app: App
    socket_id: str
    outbox: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    channels: dict[str, Any] = field(default_factory=dict)
    user: dict[str, Any] | None = None
    tokens: float = 10
    refilled: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    pinged: bool = False
    gone: bool = False

    def send(self, event: str, channel: str | None = None, data: Any = None, **more: Any) -> None:
        body = {"event": event, "channel": channel, "data": data} | more
        self.outbox.put_nowait(dumps({key: value for key, value in body.items() if value is not None}))

    def heard(self) -> None:
        self.seen = time.monotonic()
        self.pinged = False

    def error(self, code: int | None, message: str, channel: str | None = None) -> None:
        self.send("pusher:error", channel, {"code": code, "message": message})

    def close(self, code: int, message: str) -> None:
        self.error(code, message)
        self.outbox.put_nowait((code, message))


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Refused(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, kind: str, status: int, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status


class World:
    def __init__(
        self,
        apps: Iterable[App],
        faults: Iterable[str] = (),
        hook: Callable[[App, dict[str, Any], float], None] = lambda *_: None,
        activity_timeout: int = 1,
        pong_timeout: float = 2.0,
    ) -> None:
        self.apps = list(apps)
        self.faults = set(faults)
        self.hook = hook
        self.activity_timeout = activity_timeout
        self.pong_timeout = pong_timeout
        self.peers: set[Peer] = set()
        self.channels: defaultdict[tuple[str, str], dict[Peer, Any]] = defaultdict(dict)
        self.cache: dict[tuple[str, str], tuple[str, str, float]] = {}
        self.serial = 0

    def bad(self, fault: str) -> bool:
        """Whether to be wrong here."""
        return fault in self.faults

    def app(self, key: str) -> App | None:
        return next((app for app in self.apps if app.key == key), None)

    # --- connections

    def socket_id(self) -> str:
        if self.bad("counts socket ids"):
            self.serial += 1
            return f"1.{self.serial}"
        joint = "-" if self.bad("writes socket ids with a dash") else "."
        return f"{random.randrange(10**9)}{joint}{random.randrange(10**9)}"

    def refusal(self, app: App | None, params: dict[str, str], origin: str) -> tuple[int, str] | None:
        version = params.get("protocol")
        good = version is None or re.fullmatch(r"[0-9]{1,4}", version)
        versions = [
            (not good, (4006, "Invalid version string format")),
            (bool(good) and int(version or 7) not in range(4, 8), (4007, "Unsupported protocol version")),
        ]
        if self.bad("takes any version"):
            versions = []
        if self.bad("finds a bad version before the key"):
            for wrong, refusal in versions:
                if wrong:
                    return refusal
        if app is None:
            return (4001, "App key does not exist")
        live = sum(peer.app == app for peer in self.peers)
        checks = [
            (app.disabled, (4003, "Application disabled")),
            *versions,
            (
                origin == "http://refused.test" and not self.bad("takes any origin"),
                (4009, "Origin not allowed"),
            ),
            (0 < app.quota <= live, (4004, "Over connection quota")),
        ]
        return next((refusal for wrong, refusal in checks if wrong), None)

    def enter(self, app: App) -> Peer:
        peer = Peer(app, self.socket_id())
        self.peers.add(peer)
        timeout = 0 if self.bad("announces no activity timeout") else self.activity_timeout
        data: Any = {"socket_id": peer.socket_id, "activity_timeout": timeout}
        data = data if self.bad("greets with an object") else dumps(data)
        if self.bad("says something before the greeting"):
            peer.send("pusher:pong", data="{}")
        peer.send("pusher:connection_established", data=data)
        return peer

    def leave(self, peer: Peer) -> None:
        if peer.gone:
            return
        peer.gone = True
        self.peers.discard(peer)
        for name in list(peer.channels):
            if not self.bad("forgets who is cut off"):
                self.unsubscribe(peer, name, hold_back=0 if self.bad("does not hold back") else 0.3)
        if (
            peer.user
            and not self.bad("never says offline")
            and not self.sockets_of(peer.app, peer.user["id"])
        ):
            self.tell_watchers(peer.app, peer.user["id"], "offline")

    async def watch(self, peer: Peer) -> None:
        """Liveness, and time to be authorised."""
        start = time.monotonic()
        while not peer.gone:
            await asyncio.sleep(0.02)
            silence = time.monotonic() - peer.seen
            if peer.app.strict and time.monotonic() > start + 2.0 and not self.authorised(peer):
                return peer.close(4009, "Connection not authorized within timeout.")
            if silence < self.activity_timeout or self.bad("never pings"):
                continue
            if self.bad("closes silent clients"):
                return peer.close(4201, "Pong reply not received in time")
            if not peer.pinged:
                peer.pinged = True
                peer.send("pusher:ping", data="{}")
            elif silence > self.activity_timeout + self.pong_timeout and not self.bad(
                "never closes the dead"
            ):
                return peer.close(4201, "Pong reply not received in time")
        return None

    @staticmethod
    def authorised(peer: Peer) -> bool:
        return peer.user is not None or any(name.startswith(SIGNED) for name in peer.channels)

    # --- messages

    def receive(self, peer: Peer, text: str) -> None:
        try:
            body = json.loads(text)
            event = body["event"]
            assert isinstance(event, str)
        except (ValueError, KeyError, TypeError, AssertionError):
            if self.bad("closes on nonsense"):
                return peer.close(4009, "not understood")
            return peer.error(None, "not understood")
        if event.startswith("client-") or (event.startswith("xclient") and self.bad("anchors nothing")):
            return self.client_event(peer, event, body)
        handler = {
            "pusher:ping": self.ping,
            "pusher:pong": lambda *_: None,
            "pusher:subscribe": self.subscribe,
            "pusher:unsubscribe": self.left,
            "pusher:signin": self.sign_in,
        }.get(event)
        if handler is None:
            code = 4009 if self.bad("gives errors a code") else None
            text = f"Unsupported event received on socket: {event}"
            if self.bad("complains in a string"):
                return peer.send("pusher:error", data=dumps({"code": code, "message": text}))
            return peer.error(code, text)
        return handler(peer, self.data(body))

    def data(self, body: dict[str, Any]) -> dict[str, Any]:
        data = body.get("data")
        if isinstance(data, str) and not self.bad("takes data only as an object"):
            try:
                data = json.loads(data)
            except ValueError:
                data = None
        return data if isinstance(data, dict) else {}

    def ping(self, peer: Peer, _data: dict[str, Any]) -> None:
        peer.send("pusher:pong", data="{}")

    def client_event(self, peer: Peer, event: str, body: dict[str, Any]) -> None:
        name = str(body.get("channel", ""))
        size = len(dumps(body.get("data")).encode())
        now = time.monotonic()
        peer.tokens = min(10, peer.tokens + (now - peer.refilled) * 10)
        peer.refilled = now
        public = not name.startswith(SIGNED) and not self.bad("relays on public channels")
        member = peer.channels.get(name)
        checks = [
            (not peer.app.client_events, None, ENABLE),
            (event == "client-" or len(event) > 200, None, "The name is none"),
            (public, None, "Client events are for private and presence channels"),
            (name not in peer.channels and not self.bad("relays for outsiders"), None, "Not subscribed"),
            (size > 10_240 and not self.bad("relays any size"), None, "Too large"),
            (
                peer.tokens < 1 and not self.bad("has no rate limit"),
                4301,
                "Client event rejected due to rate limit",
            ),
        ]
        for wrong, code, text in checks:
            if wrong:
                if code and self.bad("closes on too many"):
                    return peer.close(code, text)
                return peer.error(code, text, None if self.bad("errors without a channel") else name)
        peer.tokens -= 1
        more = {} if member is None else {"user_id": str(member["user_id"])}
        if self.bad("lets user_id be forged"):
            more |= {"user_id": body["user_id"]} if "user_id" in body else {}
        if self.bad("forgets user_id"):
            more = {}
        data = body.get("data")
        if self.bad("turns client data into text") and not isinstance(data, str):
            data = dumps(data)
        for other in list(self.channels[peer.app.id, name]):
            if other is not peer or self.bad("echoes client events"):
                other.send(event, name, data, **more)
        if self.bad("caches client events"):
            self.cache[peer.app.id, name] = (event, dumps(data), time.monotonic())
        text = data if isinstance(data, str) or self.bad("hooks with an object for data") else dumps(data)
        fields = {"event": event, "data": text, "socket_id": peer.socket_id}
        return self.hook(peer.app, {"name": "client_event", "channel": name} | fields | more, 0)

    # --- channels

    def subscribe(self, peer: Peer, data: dict[str, Any]) -> None:
        name = data.get("channel")
        if not isinstance(name, str):
            return peer.error(None, "No channel")
        try:
            member = self.authorise(peer, name, data)
        except Refused as refused:
            return self.refuse(peer, name, refused)
        if name.startswith(TO_USER):
            return peer.send("pusher_internal:subscription_succeeded", name, "{}")
        return self.enter_channel(peer, name, member)

    def refuse(self, peer: Peer, name: str, refused: Refused) -> None:
        if self.bad("closes refused subscribers"):
            return peer.close(4009, str(refused))
        if self.bad("refuses silently"):
            return None
        data: Any = {"type": refused.kind, "error": str(refused), "status": refused.status}
        if self.bad("refuses with text"):
            data = dumps(data)
        if self.bad("tells the secret"):
            data["error"] += peer.app.secret
        return peer.send("pusher:subscription_error", name, data)

    def authorise(self, peer: Peer, name: str, data: dict[str, Any]) -> dict[str, Any] | None:
        if name.startswith(TO_USER):
            if peer.user is None or name != TO_USER + peer.user["id"]:
                raise Refused("AuthError", 401, "Not signed in as this user")
            return None
        if len(name) > 200:
            raise Refused("LimitReached", 4009, "The name is too long")
        if not NAME.fullmatch(name) and not self.bad("takes any name"):
            raise Refused("InvalidChannel", 4009, "The name has characters it may not have")
        anchored = name.startswith(SIGNED)
        if self.bad("anchors nothing"):
            anchored = any(prefix in name for prefix in SIGNED)
        if not anchored:
            return None
        self.check_signature(peer, name, data)
        if not name.startswith("presence-"):
            return None
        return self.member(peer, name, data.get("channel_data") or None)

    def check_signature(self, peer: Peer, name: str, data: dict[str, Any]) -> None:
        channel_data = data.get("channel_data") or None
        if not name.startswith("presence-") and self.bad("signs channel_data for presence only"):
            channel_data = None
        if channel_data and self.bad("signs channel_data encoded anew"):
            channel_data = dumps(json.loads(channel_data))
        text = f"{peer.socket_id}:{name}" + ("" if channel_data is None else f":{channel_data}")
        expected = sign(peer.app.secret, text)
        given = str(data.get("auth") or "")
        good = given == f"{peer.app.key}:{expected}"
        if self.bad("takes any key in auth"):
            good = given.partition(":")[2] == expected
        if self.bad("takes any signature"):
            good = ":" in given
        if self.bad("compares the start of a signature"):
            good = len(given) > 70 and f"{peer.app.key}:{expected}".startswith(given[:80])
        if not good:
            raise Refused("AuthError", 401, "Invalid signature")

    def member(self, peer: Peer, name: str, channel_data: str | None) -> dict[str, Any]:
        try:
            if channel_data is None and peer.user is not None:
                member = {"user_id": peer.user["id"]}
                member |= {"user_info": peer.user["user_info"]} if "user_info" in peer.user else {}
            else:
                data = json.loads(channel_data or "")
                member = {key: data[key] for key in ("user_id", "user_info") if key in data}
            assert type(member["user_id"]) in (int, str)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise Refused("AuthError", 401, "Invalid channel_data") from None
        if self.bad("turns ids into text"):
            member["user_id"] = str(member["user_id"])
        if len(str(member["user_id"])) > 128:
            raise Refused("LimitReached", 4301, "user_id is too long")
        if len(dumps(member.get("user_info"))) > 1024 and not self.bad("takes any user_info"):
            raise Refused("LimitReached", 4301, "user_info is too large")
        users = self.users(peer.app, name)
        if len(users) >= 100 and str(member["user_id"]) not in users:
            raise Refused("LimitReached", 4100, "The channel is full")
        return member

    def users(self, app: App, name: str) -> dict[str, dict[str, Any]]:
        """The members, the first connection's data for each."""
        found: dict[str, dict[str, Any]] = {}
        for member in self.channels[app.id, name].values():
            if member is not None:
                user_id = str(member["user_id"])
                if user_id not in found or self.bad("forgets first user_info"):
                    found[user_id] = member
        return found

    def enter_channel(self, peer: Peer, name: str, member: dict[str, Any] | None) -> None:
        key = (peer.app.id, name)
        again = name in peer.channels
        users = self.users(peer.app, name)
        if not again:
            if not self.channels[key]:
                self.hook(peer.app, {"name": "channel_occupied", "channel": name}, 0)
            known = member is not None and str(member["user_id"]) in users
            if known and member is not None and not self.bad("forgets first user_info"):
                member = users[str(member["user_id"])]
            self.channels[key][peer] = peer.channels[name] = member
            if member is not None and (not known or self.bad("adds a member for each connection")):
                self.member_event(peer, name, "member_added", member)
        elif member is not None and self.bad("adds a member again"):
            self.member_event(peer, name, "member_added", member)
        if self.bad("replays before subscription_succeeded"):
            self.replay(peer, name)
        peer.send("pusher_internal:subscription_succeeded", name, self.roster(peer.app, name, member))
        if again and self.bad("delivers twice after a second subscribe"):
            peer.channels[name] = member
            self.channels[key][Peer(peer.app, peer.socket_id, peer.outbox)] = member
        if not self.bad("replays before subscription_succeeded"):
            self.replay(peer, name)
        if not again:
            self.count(peer.app, name)

    def roster(self, app: App, name: str, member: dict[str, Any] | None) -> Any:
        if member is None:
            return {} if self.bad("succeeds with an object") else "{}"
        users = self.users(app, name)
        if self.bad("leaves the subscriber out of the roster"):
            users.pop(str(member["user_id"]), None)
        infos = {user: info.get("user_info") for user, info in users.items()}
        ids = [info["user_id"] for info in users.values()]
        return dumps({"presence": {"ids": ids, "hash": infos, "count": len(users)}})

    def member_event(self, peer: Peer, name: str, kind: str, member: dict[str, Any], hold: float = 0) -> None:
        keys = ("user_id", "user_info") if kind == "member_added" else ("user_id",)
        data = dumps({key: member[key] for key in keys if key in member})
        for other in list(self.channels[peer.app.id, name]):
            if other is not peer or self.bad("tells members of themselves"):
                other.send(f"pusher_internal:{kind}", name, data)
        user_id = member["user_id"] if self.bad("hooks with a number for user_id") else str(member["user_id"])
        self.hook(peer.app, {"name": kind, "channel": name, "user_id": user_id}, hold)

    def replay(self, peer: Peer, name: str) -> None:
        if not name.startswith(CACHED) and not (self.bad("caches everything") and "cache" not in name):
            return
        cached = self.cache.get((peer.app.id, name))
        if cached is not None and not self.bad("never replays"):
            peer.send(cached[0], name, cached[1])
        elif name.startswith(CACHED) and not self.bad("never says cache_miss"):
            peer.send("pusher:cache_miss", name)
            self.hook(peer.app, {"name": "cache_miss", "channel": name}, 0)

    def count(self, app: App, name: str, leaving: int = 0) -> None:
        if name.startswith("presence-") and not self.bad("counts presence channels"):
            return
        subscribers = self.channels[app.id, name]
        number = len(subscribers) + leaving
        for peer in list(subscribers):
            data = dumps({"subscription_count": number})
            peer.send("pusher_internal:subscription_count", name, data)
        fields = {"channel": name, "subscription_count": number}
        self.hook(app, {"name": "subscription_count"} | fields, 0)

    def left(self, peer: Peer, data: dict[str, Any]) -> None:
        name = data.get("channel")
        if isinstance(name, str) and name in peer.channels and not self.bad("ignores unsubscribe"):
            self.unsubscribe(peer, name)
        elif self.bad("complains about unknown channels"):
            peer.error(None, "Not subscribed")
        if self.bad("answers unsubscribe"):
            peer.send("pusher_internal:unsubscribed", str(name), "{}")

    def unsubscribe(self, peer: Peer, name: str, hold_back: float = 0) -> None:
        key = (peer.app.id, name)
        member = peer.channels.pop(name)
        self.channels[key].pop(peer, None)
        last = member is not None and str(member["user_id"]) not in self.users(peer.app, name)
        if member is not None and (last or self.bad("removes a member with each connection")):
            self.member_event(peer, name, "member_removed", member, hold_back)
        if not self.channels[key]:
            if not self.bad("keeps vacated channels"):
                del self.channels[key]
            self.hook(peer.app, {"name": "channel_vacated", "channel": name}, hold_back)
        else:
            self.count(peer.app, name, leaving=1 if self.bad("counts late") else 0)

    # --- users

    def sign_in(self, peer: Peer, data: dict[str, Any]) -> None:
        user_data = data.get("user_data")
        try:
            text = f"{peer.socket_id}::user::{user_data}"
            good = data.get("auth") == f"{peer.app.key}:{sign(peer.app.secret, text)}"
            assert good or self.bad("signs anybody in")
            user = json.loads(user_data or "")
            user["id"] = str(user["id"]) if type(user["id"]) is int else user["id"]
            assert isinstance(user["id"], str)
            assert user["id"]
            assert peer.user is None or peer.user["id"] == user["id"] or self.bad("lets users change")
        except (ValueError, KeyError, TypeError, AssertionError):
            if self.bad("closes on a bad sign-in"):
                return peer.close(4009, "Not signed in")
            return peer.error(4009, "Not signed in")
        first = not self.sockets_of(peer.app, user["id"])
        peer.user = user
        if self.bad("encodes user_data anew"):
            user_data = dumps(json.loads(str(user_data)))
        peer.send("pusher:signin_success", data=dumps({"user_data": user_data}))
        self.snapshot(peer, user)
        if first:
            self.tell_watchers(peer.app, user["id"], "online")
        return None

    def sockets_of(self, app: App, user: str) -> list[Peer]:
        return [peer for peer in self.peers if peer.app == app and peer.user and peer.user["id"] == user]

    def snapshot(self, peer: Peer, user: dict[str, Any]) -> None:
        watched = user.get("watchlist") or []
        if len(watched) > 100:
            peer.error(4302, "The watchlist is too long")
        states: dict[str, list[str]] = {"online": [], "offline": []}
        for other in watched[:100]:
            states["online" if self.sockets_of(peer.app, other) else "offline"].append(other)
        keep_empty = self.bad("sends empty watchlists")
        events = [
            {"name": name, "user_ids": ids} for name, ids in states.items() if ids or (keep_empty and watched)
        ]
        if events:
            peer.send("pusher_internal:watchlist_events", data=dumps({"events": events}))

    def tell_watchers(self, app: App, user: str, state: str) -> None:
        events = {"events": [{"name": state, "user_ids": [user]}]}
        for peer in self.peers:
            if peer.app == app and peer.user and user in (peer.user.get("watchlist") or []):
                peer.send("pusher_internal:watchlist_events", data=dumps(events))

    # --- publishing

    def publish(self, app: App, name: str, event: str, data: str, socket_id: str | None) -> None:
        if self.bad("encodes data anew"):
            data = _anew(data)
        if self.bad("ignores socket_id"):
            socket_id = None
        if name.startswith(TO_USER):
            for peer in self.sockets_of(app, name.removeprefix(TO_USER)):
                for _ in range(2 if self.bad("delivers to users twice") else 1):
                    peer.send(event, name, data)
            return
        self.deliver(app, name, event, data, socket_id)

    def deliver(self, app: App, name: str, event: str, data: str, socket_id: str | None) -> None:
        more = {"message_id": "x"} if self.bad("adds keys to deliveries") else {}
        if name.startswith(CACHED) or self.bad("caches everything"):
            self.cache[app.id, name] = (event, data, time.monotonic())
        for peer in list(self.channels.get((app.id, name), ())):
            if peer.socket_id != socket_id:
                peer.send(event, name, data, **more)
        if self.bad("delivers to everybody"):
            for peer in self.peers:
                if peer.app == app and name not in peer.channels:
                    peer.send(event, name, data)


def _anew(data: str) -> str:
    try:
        return dumps(json.loads(data))
    except ValueError:
        return data
