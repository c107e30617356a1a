"""Sections 10.1 and 10.2: signatures of requests, and the form of answers."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from legato.protocol import signatures

from . import http
from .checks import NotApplicable, check, equal
from .context import encode, member
from .outcome import case

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import CaseContext

EMPTY_MD5: Final = hashlib.md5(b"", usedforsecurity=False).hexdigest()
SPECIAL: Final = "presence-a=b;c@d,"
BODY: Final = encode({"name": "e", "channel": "conformance", "data": "x"})


@case("10.1", "a good signature is 200")
async def good(t: CaseContext) -> None:
    await t.publish(t.name(), "e", "x")
    await t.ok("GET", "/channels")


def _now(offset: int) -> str:
    return str(int(time.time()) + offset)


SIGNED: Final[tuple[tuple[str, Callable[[CaseContext], dict[str, str]], int], ...]] = (
    ("an auth_key that is unknown", lambda t: {"auth_key": t.name()}, 401),
    ("an empty auth_key", lambda _: {"auth_key": ""}, 401),
    ("the application's id as auth_key", lambda t: {"auth_key": f"{t.app.id}x"}, 401),
    ("auth_version 2.0", lambda _: {"auth_version": "2.0"}, 401),
    ("an empty auth_version", lambda _: {"auth_version": ""}, 401),
    ("a timestamp an hour ago", lambda _: {"auth_timestamp": _now(-3600)}, 401),
    ("a timestamp 620 s ago", lambda _: {"auth_timestamp": _now(-620)}, 401),
    ("a timestamp an hour ahead", lambda _: {"auth_timestamp": _now(3600)}, 401),
    ("a timestamp 570 s ago", lambda _: {"auth_timestamp": _now(-570)}, 200),
    ("a timestamp 570 s ahead", lambda _: {"auth_timestamp": _now(570)}, 200),
    ("a timestamp that is not a number", lambda _: {"auth_timestamp": "now"}, 401),
    ("an empty timestamp", lambda _: {"auth_timestamp": ""}, 401),
    ("a timestamp in milliseconds", lambda _: {"auth_timestamp": f"{_now(0)}000"}, 401),
    ("body_md5 of another body", lambda _: {"body_md5": EMPTY_MD5}, 401),
    ("an empty body_md5", lambda _: {"body_md5": ""}, 401),
    ("an unknown parameter that is signed", lambda _: {"x": "y"}, 200),
)
"""Parameters that are part of a valid signature."""


async def signed(t: CaseContext, change: Callable[[CaseContext], dict[str, str]], status: int) -> str:
    return await t.status(status, "POST", "/events", BODY, **change(t))


for name, change, status in SIGNED:
    case("10.1", f"{name}: {status}")(partial(signed, change=change, status=status))

CHANGES: Final[tuple[tuple[str, Callable[[dict[str, str]], Any]], ...]] = (
    ("no auth_signature", lambda p: p.pop("auth_signature")),
    ("an empty auth_signature", lambda p: p.update(auth_signature="")),
    ("a truncated auth_signature", lambda p: p.update(auth_signature=p["auth_signature"][:-1])),
    ("an auth_signature of zeros", lambda p: p.update(auth_signature="0" * 64)),
    ("no auth_key", lambda p: p.pop("auth_key")),
    ("no auth_timestamp", lambda p: p.pop("auth_timestamp")),
    ("no auth_version", lambda p: p.pop("auth_version")),
    ("no body_md5", lambda p: p.pop("body_md5")),
    ("a parameter that was added after signing", lambda p: p.update(x="y")),
    ("a timestamp that was changed after signing", lambda p: p.update(auth_timestamp=_now(5))),
    ("no parameters", lambda p: p.clear()),
)
"""Changes to the parameters after signing."""


async def changed(t: CaseContext, change: Callable[[dict[str, str]], Any]) -> str:
    channel = t.name()
    socket = await t.connect()
    await t.subscribe(socket, channel)
    body = encode({"name": "e", "channel": channel, "data": "x"})
    path = t.path("/events")
    params = t.sign("POST", path, body, {})
    change(params)
    response = await t.send("POST", path, params, body)
    check(response.status == 401, f"expected 401, got {response}")
    check(t.app.secret not in response.text, "the answer has the application's secret in it")
    await socket.nothing("expected nothing to be published")
    return str(response)


for name, change_after in CHANGES:
    case("10.1", f"{name}: 401")(partial(changed, change=change_after))


@case("10.1", "body_md5 is required even if the signature without it is good: 401")
async def unsigned_body(t: CaseContext) -> str:
    path = t.path("/events")
    response = await t.send("POST", path, t.sign("POST", path, b"", {}), BODY)
    check(response.status == 401, f"expected 401, got {response}")
    return str(response)


@case("10.1", "a body that was changed after signing: 401")
async def changed_body(t: CaseContext) -> None:
    path = t.path("/events")
    response = await t.send("POST", path, t.sign("POST", path, BODY, {}), BODY.replace(b'"x"', b'"y"'))
    check(response.status == 401, f"expected 401, got {response}")


@case("10.1", "signed with another secret: 401")
async def other_secret(t: CaseContext) -> None:
    response = await t.api("POST", "/events", BODY, app=t.app._replace(secret="x"))  # noqa: S106 - wrong on purpose
    check(response.status == 401, f"expected 401, got {response}")


@case("10.1", "signed for another method or path: 401")
async def other_request(t: CaseContext) -> None:
    path = t.path("/events")
    for params in (t.sign("GET", path, BODY, {}), t.sign("POST", t.path("/batch_events"), BODY, {})):
        response = await t.send("POST", path, params, BODY)
        check(response.status == 401, f"expected 401, got {response}")


@case("10.1", "an unknown application: 404")
async def unknown_app(t: CaseContext) -> None:
    response = await t.api("POST", "/events", BODY, app=t.app._replace(id=t.name()))
    check(response.status == 404, f"expected 404, got {response}")


@case("10.1", "the key is not the application's id: 404")
async def key_is_no_id(t: CaseContext) -> None:
    if t.app.id == t.app.key:
        raise NotApplicable("this application has the same id and key")
    response = await t.api("POST", "/events", BODY, app=t.app._replace(id=t.app.key))
    check(response.status == 404, f"expected 404, got {response}")


@case("10.1", "a disabled application: 403", "disabled")
async def disabled(t: CaseContext) -> None:
    response = await t.api("POST", "/events", BODY, app=t.target.others["disabled"])
    check(response.status == 403, f"expected 403, got {response}")


@case("10.1", "body_md5 of a GET is signed as it was sent, as from the Python SDK")
async def md5_on_get(t: CaseContext) -> None:
    await t.ok("GET", "/channels", body_md5=EMPTY_MD5)
    path = t.path("/channels")
    params = t.sign("GET", path, b"", {"body_md5": EMPTY_MD5})
    for wrong in ({**params, "body_md5": "x"}, {name: params[name] for name in params if name != "body_md5"}):
        response = await t.send("GET", path, wrong)
        check(response.status == 401, f"expected 401 for a changed body_md5, got {response}")


async def special(t: CaseContext, escape: Callable[[str], str]) -> None:
    """Filter by the name of a channel that has special characters."""
    socket, channel = await t.connect(), t.name(SPECIAL)
    await t.join(socket, channel, "7")
    path = t.path("/channels")
    params = t.sign("GET", path, b"", {"filter_by_prefix": channel, "info": "user_count"})
    response = await t.send("GET", path, {name: escape(value) for name, value in params.items()})
    check(response.status == 200, f"expected 200, got {response}")
    equal([*response.json().get("channels", {})], [channel], "the channels")


for name, escape in (
    ("unescaped, as from the Node, Python and Go SDKs", str),
    ("escaped, as from the Ruby and PHP SDKs", partial(quote, safe="")),
    ("escaped in lower case", lambda value: quote(value, safe="").lower()),
):
    case("10.1", f"a query {name}")(partial(special, escape=escape))


@case("10.1", "the order of the parameters does not matter")
async def any_order(t: CaseContext) -> None:
    path = t.path("/channels")
    params = t.sign("GET", path, b"", {"filter_by_prefix": t.name()})
    response = await t.send("GET", path, dict(reversed(params.items())))
    check(response.status == 200, f"expected 200, got {response}")


@case("10.1", "parameters of a POST may be in the query; channels[] join with a comma for signing")
async def array_parameters(t: CaseContext) -> None:
    socket = await t.connect()
    one, two = t.name(), t.name()
    for channel in (one, two):
        await t.subscribe(socket, channel)
    path, content = t.path("/events"), encode({"data": "x"})
    params = t.sign("POST", path, content, {"name": "e", "channels": f"{one},{two}"})
    del params["channels"]
    query = "&".join(f"{name}={value}" for name, value in params.items())
    target = f"{path}?{query}&channels[]={one}&channels[]={two}"
    headers = {"content-type": "application/json"}
    response = await http.request("POST", t.target.api, target, headers, content, t.target.timeout)
    check(response.status == 200, f"expected 200, got {response}")
    equal({(await socket.expect("e")).channel for _ in range(2)}, {one, two}, "the channels")


async def in_path(t: CaseContext, sign_escaped: bool) -> None:
    socket, channel = await t.connect(), t.name(SPECIAL)
    await t.join(socket, channel, "7")
    decoded = t.path(f"/channels/{channel}/users")
    escaped = t.path(f"/channels/{quote(channel, safe='')}/users")
    params = t.sign("GET", escaped if sign_escaped else decoded, b"", {})
    response = await t.send("GET", escaped, params)
    check(response.status == 200, f"expected 200, got {response}")
    equal(response.json(), {"users": [{"id": "7"}]}, "the answer")


for name, sign_escaped in (("as it is sent", True), ("before it is escaped", False)):
    case("10.1", f"a path that is signed {name}")(partial(in_path, sign_escaped=sign_escaped))


@case("10.1", "a path with =@,.; unescaped")
async def raw_path(t: CaseContext) -> None:
    socket, channel = await t.connect(), t.name(SPECIAL)
    await t.join(socket, channel, "7")
    equal(await t.ok("GET", f"/channels/{channel}/users"), {"users": [{"id": "7"}]}, "the answer")


@case("10.1", "without a signature, an answer tells nothing about channels and users")
async def reveals_nothing(t: CaseContext) -> None:
    socket, channel, user = await t.connect(), t.name("presence-"), t.name()
    await t.subscribe(socket, channel, member(user))
    for path in ("/channels", f"/channels/{channel}", f"/channels/{channel}/users"):
        there = await t.send("GET", t.path(path), {})
        check(there.status == 401, f"expected 401 for {path}, got {there}")
        check(user not in there.text, f"the answer tells of a user: {there}")
        nobody = await t.send("GET", t.path(path.replace(channel, t.name("presence-"))), {})
        equal(there.status, nobody.status, "the status for a channel that is not there")


@case("10.1", "the signature of another text is refused")
async def no_confusion(t: CaseContext) -> None:
    path = t.path("/channels")
    params = t.sign("GET", path, b"", {})
    text = signatures.request_text("GET", f"{path}/x", params)
    params["auth_signature"] = signatures.sign(t.app.secret, text)
    response = await t.send("GET", path, params)
    check(response.status == 401, f"expected 401, got {response}")


def _json(response: http.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    equal(kind, "application/json", "content-type")
    check(isinstance(response.json(), dict), f"not an object: {response}")


@case("10.2", "answers are JSON objects with the content type application/json")
async def json_answers(t: CaseContext) -> None:
    body = {"name": "e", "channel": t.name(), "data": "x"}
    for method, path, content in (
        ("POST", "/events", body),
        ("POST", "/batch_events", {"batch": [body]}),
        ("GET", "/channels", None),
        ("GET", f"/channels/{t.name()}", None),
        ("GET", f"/channels/{t.name('presence-')}/users", None),
    ):
        response = await t.api(method, path, content)
        check(response.status == 200, f"expected 200 for {method} {path}, got {response}")
        _json(response)


@case("10.2", "an unknown route: 404")
async def unknown_route(t: CaseContext) -> None:
    for path in ("/nope", "/events/x", f"/channels/{t.name()}/nope"):
        await t.status(404, "GET", path)


@case("10.2", "a wrong method for a route: 404 or 405")
async def other_method(t: CaseContext) -> str:
    response = await t.api("GET", "/events")
    check(response.status in (404, 405), f"expected 404 or 405, got {response}")
    return str(response.status)
