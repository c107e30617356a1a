"""Settings that are read again while the server runs."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.broadcaster import reloading
from legato.broadcaster.apps.source import AppWatcher
from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat, Server, Settings, SettingsSource
from legato.broadcaster.process import reloadable
from legato.broadcaster.reloading import CERTIFICATE, LIMITS, Reloadable, Reloader, differences
from legato.protocol.apps import App
from legato.protocol.settings import Log, Redis, SettingsError
from tests.broadcaster.addresses.test_limits import authorise, connected, upgrade
from tests.broadcaster.api.test_http_api import EVENTS, signed
from tests.broadcaster.conftest import APP, local_settings
from tests.broadcaster.transport.fed import door
from tests.certificates import make as make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broadcaster.transport.fed import Door

KEPT = "changed settings that need a restart, and stay as they were: "
START = local_settings(server=Server(port=0, drain_seconds=0), auth=Auth(jwt_secret="x" * 32))


def server(**changes: Any) -> Settings:
    return msgspec.structs.replace(START, server=msgspec.structs.replace(START.server, **changes))


@dataclass
class File:
    """What the settings' file says next."""

    settings: Settings | Exception = START
    levels: list[str] = field(default_factory=list)
    reads: int = 0

    def read(self) -> Settings:
        self.reads += 1
        if isinstance(self.settings, Exception):
            raise self.settings
        return self.settings


class Reload:
    """Of a node without sockets."""

    def __init__(self, opened: Door, file: File) -> None:
        node = opened.node
        self.parts = Reloadable(
            node.app_changes.apply, node.clients, node.subscriptions, node.addresses, None
        )
        self.reloader = Reloader(START, SettingsSource(file.read, file.levels.append))

    async def __call__(self) -> None:
        await self.reloader.reload(self.parts)


@pytest.fixture(autouse=True)
def _lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def said(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """Lines about reloads since the last call."""
    lines = [
        line for line in caplog.messages if "reloaded" in line or "read again" in line or "restart" in line
    ]
    caplog.clear()
    return iter(lines)


async def test_applications_change_for_who_is_connected(caplog):
    other = App("2", "other-key", "other-secret")
    file = File()
    async with door(START) as opened:
        reload = Reload(opened, file)
        one, _ = connected(opened, upgrade(), "192.0.2.1")
        file.settings = msgspec.structs.replace(
            START, apps=(msgspec.structs.replace(APP, max_presence_members=7), other)
        )
        await reload()
        assert not one.ended
        assert opened.node.apps.by_id["1"].max_presence_members == 7
        assert connected(opened, upgrade().replace(b"app-key", b"other-key"), "192.0.2.1")[1] is None
        assert list(said(caplog)) == ["the settings were read again; changed: apps"]
        file.settings = msgspec.structs.replace(START, apps=(other,))
        await reload()
        assert b"4001" in one.written
        assert list(said(caplog)) == [
            "the settings were read again; changed: apps",
            f"{KEPT}auth.app and chat.app (another application is the first one)",
        ]


async def test_limits_change():
    file = File()
    async with door(START) as opened:
        reload = Reload(opened, file)
        before, _ = connected(opened, upgrade(), "192.0.2.1")
        file.settings = server(max_connections=1, max_subscriptions=5)
        await reload()
        assert connected(opened, upgrade(), "192.0.2.1")[1] == 4100
        assert opened.node.subscriptions.most == 5
        file.settings = server()
        await reload()
        assert connected(opened, upgrade(), "192.0.2.1")[1] is None
        assert opened.node.subscriptions.most == 500_000
        assert not before.ended


async def test_limits_by_address_begin_and_end():
    """Clients that came before there was a limit are not counted; those that came under one stay counted."""
    file = File()
    async with door(START) as opened:
        reload = Reload(opened, file)
        early, _ = connected(opened, upgrade(), "192.0.2.1")
        file.settings = server(max_connections_per_address=1)
        await reload()
        first, code = connected(opened, upgrade(), "192.0.2.1")
        assert code is None
        assert connected(opened, upgrade(), "192.0.2.1")[1] == 4100
        early.protocol.connection_lost(None)
        assert connected(opened, upgrade(), "192.0.2.1")[1] == 4100
        file.settings = server()
        await reload()
        assert connected(opened, upgrade(), "192.0.2.1")[1] is None
        file.settings = server(max_connections_per_address=2)
        await reload()
        assert connected(opened, upgrade(), "192.0.2.1")[1] == 4100
        first.protocol.connection_lost(None)
        assert connected(opened, upgrade(), "192.0.2.1")[1] is None


async def test_limits_of_failures_begin():
    file = File()
    async with door(START) as opened:
        reload = Reload(opened, file)

        async def statuses(request: bytes) -> list[bytes]:
            found = []
            for _ in range(2):
                one = opened.come("192.0.2.1")
                one.read(request)
                await opened.calm()
                found.append(one.written.split()[1])
            return found

        token = authorise("", "Bearer x")
        signature = (
            f"POST {signed(EVENTS, b'{}')}x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        for request in (token, signature):
            assert await statuses(request) == [b"401", b"401"]
        file.settings = server(max_failed_tokens_per_address=1, max_failed_signatures_per_address=1)
        await reload()
        for request in (token, signature):
            assert await statuses(request) == [b"401", b"429"]


async def test_what_needs_a_restart_is_named_without_its_value_and_stays(caplog):
    file = File(
        Settings(
            server=Server(host="::", port=1, processes=2, drain_seconds=0, max_connections=9),
            metrics=START.metrics,
            apps=START.apps,
            redis=Redis(url="redis://:hidden@redis"),
            log=Log(level="debug", time="full"),
            auth=Auth(jwt_secret="hidden" * 8),
            chat=Chat(max_queued=5),
        )
    )
    async with door(START) as opened:
        reload = Reload(opened, file)
        names = ["server.host", "server.port", "server.processes", "redis.url", "log.time", "auth.jwt_secret"]
        names.append("chat.max_queued")
        for changed in ("server.max_connections, log.level", "nothing"):
            await reload()
            assert list(said(caplog)) == [
                f"the settings were read again; changed: {changed}",
                KEPT + ", ".join(names),
            ]
        assert file.levels == ["debug"]
        assert reload.reloader.in_force.server.port == 0
        assert "hidden" not in caplog.text


@pytest.mark.parametrize("error", [SettingsError("legato.toml: server: no such key"), RuntimeError("a bug")])
async def test_wrong_settings_change_nothing(error, caplog):
    file = File(error)
    async with door(START) as opened:
        reload = Reload(opened, file)
        await reload()
        assert reload.reloader.in_force == START
        (line,) = said(caplog)
        assert line.startswith("not reloaded, the settings stay as they were")
        assert ("no such key" in line) == isinstance(error, SettingsError)
        file.settings = server(max_connections=3)
        await reload()
        assert opened.node.clients.most == 3


async def test_signals_that_come_meanwhile_make_one_more(caplog):
    """One that came during the start is not lost; one that comes during the stop is ignored."""
    file = File()
    async with door(START) as opened:
        reload = Reload(opened, file)
        reloader = reload.reloader
        for _ in range(3):
            reloader.ask()
        assert file.reads == 0
        reloader.start(reload.parts)
        await asyncio.sleep(0)
        for _ in range(5):
            reloader.ask()
        assert reloader._task is not None
        await reloader._task
        assert file.reads == 2
        opened.node.clients.leaving = True
        reloader.ask()
        assert reloader._task.done()
        assert len(list(said(caplog))) == 2


async def test_certificates_are_read_again(tmp_path, caplog):
    files = {"tls_cert": str(tmp_path / "server.pem"), "tls_key": str(tmp_path / "server.key")}
    make_certificates(tmp_path)
    settings = server(**files)
    async with running(settings) as started:

        async def presented() -> bytes:
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            _, writer = await asyncio.open_connection("127.0.0.1", started.port, ssl=trusting)
            found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return found

        file = File(settings)
        reloader, parts = (
            Reloader(settings, SettingsSource(file.read, file.levels.append)),
            reloadable(started),
        )
        first = await presented()
        make_certificates(tmp_path)
        assert await presented() == first
        await reloader.reload(parts)
        second = await presented()
        assert second != first
        assert list(said(caplog)) == ["the settings and the certificate were read again; changed: nothing"]
        (tmp_path / "server.key").write_text("no key")
        file.settings = msgspec.structs.replace(
            settings, server=msgspec.structs.replace(settings.server, max_connections=1)
        )
        await reloader.reload(parts)
        assert next(said(caplog)).startswith(
            "not reloaded, the settings stay as they were: server.tls_cert, server.tls_key: "
        )
        assert await presented() == second
        assert started.node.clients.most == 0
        make_certificates(tmp_path)
        file.settings = START
        await reloader.reload(parts)
        assert list(said(caplog))[1].endswith("stay as they were: server.tls_cert, server.tls_key")


async def test_files_that_change_again_between_check_and_use_are_told(caplog, monkeypatch):
    live = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def load(context: ssl.SSLContext, *_: str) -> None:
        if context is live:
            raise SettingsError("no such file")

    monkeypatch.setattr(reloading, "load_certificate", load)
    files = {"tls_cert": "a", "tls_key": "b"}
    file = File(server(**files, max_connections=5))
    async with door(START) as opened:
        reload = Reload(opened, file)
        await reload.reloader.reload(reload.parts._replace(tls=live))
        assert "new TLS connections fail until the next reload: no such file" in caplog.messages
        assert opened.node.clients.most == 5


class Store:
    name = "store"

    async def read(self):
        return [("9", App("9", "nine", "secret"))]

    def app(self, content):
        return content

    async def close(self): ...


async def test_applications_of_the_source_stay():
    used: list[list[str]] = []

    async def use(apps: tuple[App, ...]) -> None:
        used.append([app.id for app in apps])

    watcher = AppWatcher(Store(), (APP,), 600)
    assert [app.id for app in await watcher.load()] == ["1", "9"]
    await watcher.change_own((App("2", "two", "secret"),), use)
    assert used == [["2", "9"]]
    assert [app.id for app in await watcher.load()] == ["2", "9"]


def test_every_limit_that_is_reloaded_is_told_apart():
    for name in LIMITS:
        value = ("10.0.0.0/8",) if name == "trusted_proxies" else 77
        assert list(differences(START, server(**{name: value}))) == [f"server.{name}"]


def test_the_guide_names_what_is_reloaded():
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    section = text.split("### Reload\n")[1].split("\n### ")[0]
    named = re.findall(r"`(server\.\w+)`", section.split("- `log.level`")[0])
    assert sorted(named) == sorted(f"server.{name}" for name in (*LIMITS, *CERTIFICATE))
