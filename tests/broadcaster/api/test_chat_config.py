"""What a page is told that the chat can do."""

from __future__ import annotations

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat, Server
from legato.protocol.settings import Price
from tests.broadcaster.api.test_chat import SECRET, call
from tests.broadcaster.conftest import local_settings

PATH = "/api/chat/config"
AUTH = Auth(jwt_secret=SECRET)


async def test_a_page_is_told_limits_options_and_prices() -> None:
    chat = Chat(
        allow=("model", "attachments"),
        models=("m-1", "m-2"),
        max_attachments=2,
        database_url="sqlite:////none.db",
        prices={"m-1": Price(3, 15, 0.3, 3.75), "m-2": Price(1, 5)},
        currency="EUR",
    )
    server = Server(port=0, drain_seconds=0, max_request_bytes=1_000_000)
    async with running(local_settings(auth=AUTH, chat=chat, server=server)) as node:
        assert (await call(node, "GET", PATH, None, {}))[0] == 401
        status, told = await call(node, "GET", PATH)
    assert status == 200
    assert told == {
        "conversations": True,
        "max_message_characters": 100_000,
        "max_history_turns": 100,
        "max_history_characters": 160_000,
        "max_request_bytes": 1_000_000,
        "allow": ["model", "attachments"],
        "agents": [],
        "models": ["m-1", "m-2"],
        "attachments": {
            "max": 2,
            "max_bytes": 524_288,
            "hosts": [],
            "media_types": ["image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"],
        },
        "prices": {
            "currency": "EUR",
            "models": {
                "m-1": {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75},
                "m-2": {"input": 1, "output": 5, "cacheRead": 0, "cacheWrite": 0},
            },
        },
    }


async def test_by_default_it_offers_nothing_but_text() -> None:
    async with running(local_settings(auth=AUTH)) as node:
        _, told = await call(node, "GET", PATH)
    names = ("conversations", "allow", "attachments", "prices")
    assert [told[name] for name in names] == [False, [], None, None]
