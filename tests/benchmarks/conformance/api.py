"""The HTTP API of the small server, without I/O: from a request to a status and what is answered."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from legato.protocol.signatures import parse_query
from tests.benchmarks.conformance.world import CACHED, NAME, TO_USER, dumps

if TYPE_CHECKING:
    from tests.benchmarks.conformance.world import App, World

SOCKET_ID = re.compile(r"[0-9]+\.[0-9]+")


class ApiError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Api:
    def __init__(self, world: World) -> None:
        self.world = world

    def route(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        path, _, raw_query = target.partition("?")
        query = raw_query.replace(";", "&") if self.world.bad("splits queries at ;") else raw_query
        params = parse_query(query.encode())
        parts = [unquote(part) for part in path.split("/")[1:]]
        if parts[0] == "users":
            app = self.world.app(params.get("auth_key", ""))
            if app is None:
                raise ApiError(401, "unknown key")
            parts = ["apps", app.id, *parts]
        found = next((app for app in self.world.apps if parts[:2] == ["apps", app.id]), None)
        if found is None:
            raise ApiError(404, "no such application")
        if not (method == "GET" and self.world.bad("tells everybody about channels")):
            self.authenticate(found, method, path, params, body)
        return self.dispatch(found, method, parts[2:], params, body)

    def authenticate(self, app: App, method: str, path: str, params: dict[str, str], body: bytes) -> None:
        bad = self.world.bad
        if bad("takes any API request"):
            return
        if params.get("auth_key") != app.key or params.get("auth_version") != "1.0":
            raise ApiError(401, "auth_key or auth_version")
        stamp = params.get("auth_timestamp", "")
        fresh = re.fullmatch(r"[0-9]{1,15}", stamp) and abs(time.time() - int(stamp)) <= 600
        if not fresh and not bad("takes any timestamp"):
            raise ApiError(401, "auth_timestamp")
        if body and params.get("body_md5") != hashlib.md5(body).hexdigest() and not bad("takes any body"):
            raise ApiError(401, "body_md5")
        signed = dict(params)
        if not body and bad("drops body_md5 of a GET"):
            signed.pop("body_md5", None)
        pairs = "&".join(f"{key}={value}" for key, value in sorted(signed.items()) if key != "auth_signature")
        paths = [path] if bad("knows paths only as sent") else [path, unquote(path)]
        for spelling in paths:
            text = f"{method}\n{spelling}\n{pairs}".encode()
            if hmac.new(app.secret.encode(), text, hashlib.sha256).hexdigest() == params.get(
                "auth_signature"
            ):
                break
        else:
            raise ApiError(401, "auth_signature")
        if app.disabled:
            raise ApiError(403, "disabled")

    def dispatch(  # noqa: C901, PLR0911 - a table of routes
        self, app: App, method: str, parts: list[str], params: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        match [method, *parts]:
            case ["POST", "events"]:
                return 200, self.events(app, self.given(body, params))
            case ["POST", "batch_events"]:
                return 200, self.batch(app, _object(body))
            case ["POST", "channels", name, "events"]:
                self.events(app, {**params, "channel": name, "data": body.decode()})
                return 202, {}
            case ["GET", "channels"]:
                return 200, self.channels(app, params)
            case ["GET", "channels", name] | ["GET", "channels", name, "stats"]:
                return 200, self.channel(app, name, params)
            case ["GET", "channels", name, "users"]:
                return 200, self.users(app, name)
            case ["POST", "users", user, "terminate_connections"]:
                for peer in self.world.sockets_of(app, user):
                    if not self.world.bad("terminates nobody"):
                        peer.close(4009, "Terminated")
                return 200, {}
            case ["GET", "connections"]:
                return 200, {"connections": len(self.world.peers)}
        raise ApiError(404, "no such route")

    def given(self, body: bytes, params: dict[str, str]) -> dict[str, Any]:
        given: dict[str, Any] = {
            key: params[key] for key in ("name", "data", "socket_id", "info") if key in params
        }
        if "channels" in params:
            given["channels"] = params["channels"].split(",")
        return given | _object(body)

    def events(self, app: App, body: dict[str, Any]) -> Any:
        channels = body.get("channels", [body.get("channel")])
        if not isinstance(channels, list) or not 1 <= len(channels) <= 100:
            raise ApiError(400, "channels")
        if not self.world.bad("delivers to doubles"):
            channels = list(dict.fromkeys(map(_text, channels)))
        data = self.checked(body, channels)
        for name in channels:
            self.world.publish(app, name, body["name"], data, body.get("socket_id"))
        if body.get("info") is None:
            return {"ok": True} if self.world.bad("answers with more than {}") else {}
        return {"channels": {name: self.info(app, name, body["info"]) for name in channels}}

    def batch(self, app: App, body: dict[str, Any]) -> Any:
        events = body.get("batch")
        if not isinstance(events, list) or not 1 <= len(events) <= 10:
            raise ApiError(400, "batch")
        one_by_one = self.world.bad("sends a batch one by one")
        checked = [] if one_by_one else [self.checked(event, [event.get("channel")]) for event in events]
        for index, event in enumerate(events):
            data = self.checked(event, [event.get("channel")]) if one_by_one else checked[index]
            self.world.publish(app, event["channel"], event["name"], data, event.get("socket_id"))
        if all(event.get("info") is None for event in events):
            return {}
        infos = [self.info(app, event["channel"], event.get("info") or "") for event in events]
        return {"batch": {} if self.world.bad("answers a batch with an object") else infos}

    def checked(self, event: Any, channels: list[Any]) -> str:
        if not isinstance(event, dict) or "data" not in event:
            raise ApiError(400, "data")
        name, socket_id = event.get("name"), event.get("socket_id")
        reserved = isinstance(name, str) and re.match(r"pusher(_internal)?:", name)
        if (
            not isinstance(name, str)
            or not 1 <= len(name) <= 200
            or (reserved and not self.world.bad("sends names of the protocol"))
        ):
            raise ApiError(400, "name")
        for channel in channels:
            if not isinstance(channel, str) or not NAME.fullmatch(channel.removeprefix(TO_USER)):
                raise ApiError(400, "channel")
        good = socket_id is None or (isinstance(socket_id, str) and SOCKET_ID.fullmatch(socket_id))
        if not good and not self.world.bad("takes any socket_id"):
            raise ApiError(400, "socket_id")
        data = event["data"] if isinstance(event["data"], str) else dumps(event["data"])
        size = len(data) if self.world.bad("measures characters") else len(data.encode())
        if size > 10_240:
            raise ApiError(400 if self.world.bad("answers 400 to too much data") else 413, "data")
        return data

    def info(self, app: App, name: str, wanted: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        names = wanted.split(",")
        if "user_count" in names and name.startswith("presence-"):
            count: Any = len(self.world.users(app, name))
            if self.world.bad("counts connections for users"):
                count = len(self.world.channels.get((app.id, name), ()))
            found["user_count"] = str(count) if self.world.bad("counts in text") else count
        if "subscription_count" in names:
            found["subscription_count"] = len(self.world.channels.get((app.id, name), ()))
        return found

    def channels(self, app: App, params: dict[str, str]) -> Any:
        prefix, info = params.get("filter_by_prefix", ""), params.get("info", "")
        if "user_count" in info.split(",") and not prefix.startswith("presence-"):
            raise ApiError(400, "user_count may only be requested for presence channels")
        known = [name for app_id, name in list(self.world.channels) if app_id == app.id]
        named = [name for name in known if prefix in name] if self.world.bad("filters anywhere") else None
        named = named if named is not None else [name for name in known if name.startswith(prefix)]
        kept = self.world.bad("keeps vacated channels")
        names = [name for name in named if kept or self.world.channels[app.id, name]]
        found = {name: self.info(app, name, info) for name in names}
        return {"channels": [] if self.world.bad("lists nothing as a list") and not found else found}

    def channel(self, app: App, name: str, params: dict[str, str]) -> Any:
        wanted = params.get("info", "")
        counted = "user_count" in wanted.split(",")
        if counted and not name.startswith("presence-") and not self.world.bad("counts users of any channel"):
            raise ApiError(400, "user_count")
        found = {"occupied": bool(self.world.channels.get((app.id, name)))} | self.info(app, name, wanted)
        if "cache" in wanted.split(",") and name.startswith(CACHED):
            cached = self.world.cache.get((app.id, name))
            left = 0 if cached is None else int(1800 - (time.monotonic() - cached[2]))
            found["cache"] = None if cached is None else {"data": cached[1], "ttl": left}
        return found

    def users(self, app: App, name: str) -> Any:
        if not name.startswith("presence-"):
            raise ApiError(400, "presence channels only")
        members = self.world.users(app, name).values()
        as_text = (lambda value: value) if self.world.bad("lists ids as they are") else str
        return {"users": [{"id": as_text(member["user_id"])} for member in members]}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        raise ApiError(400, "not JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, "not an object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ApiError(400, "channel")
    return value
