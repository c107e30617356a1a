"""Broadcaster and worker as processes on what operators have: TLS, ACL users, a Cluster, Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from redis.exceptions import RedisError

from legato.broadcaster.redis_client import redis_client
from tests import least_rights
from tests.broadcaster.api.test_http_api import EVENTS, call, post
from tests.broadcaster.conftest import client
from tests.broadcaster.test_server import ENVIRON, legato
from tests.certificates import make as make_certificates
from tests.conftest import SYSTEM
from tests.redis_clusters import Cluster, Sentinels, SentinelServer, TcpServer
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.broadcaster.conftest import Client
    from tests.broadcaster.test_server import Process

SECRET = "a secret of more than thirty-two bytes"
PASSWORD = "hush-a-password"


def grant(server: TcpServer, *further: str) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "legato", f">{PASSWORD}", *least_rights.rules(), *further)


def denied(server: TcpServer) -> list[dict[str, Any]]:
    """What the user was refused, but for the name of its library, which redis-py does without."""
    with server.client() as admin:
        return [entry for entry in admin.acl_log() if entry["object"] != "client|setinfo"]


class World:
    """A broadcaster, a worker, and a user who chats."""

    def __init__(self, environ: dict[str, str], broadcaster: Process, worker: Process, port: int) -> None:
        self.environ, self.broadcaster, self.worker, self.port = environ, broadcaster, worker, port

    async def chat(self, ann: Client) -> str:
        """Send a message; answers the reply's text once it has ended, heard token by token."""
        headers = {"Authorization": "Bearer " + jwt.encode({"sub": 7, "exp": 2**32}, SECRET)}
        body = json.dumps({"message": "Hello", "history": []}).encode()
        status, answer = await call(self.port, "/api/chat/send", body, headers=headers)
        assert status == 200, answer
        tokens: list[str] = []
        while True:
            message = await ann.receive()
            if message["event"] == "token.received":
                data = json.loads(message["data"])
                assert (data["messageId"], data["tokenIndex"]) == (answer["message_id"], len(tokens))
                tokens.append(data["token"])
            elif message["event"] == "stream.completed":
                break
        path = f"/api/chat/{answer['message_id']}"
        status, found = await call(self.port, path, method="GET", headers=headers)
        assert (status, found["text"], found["status"]) == (200, "".join(tokens), "complete")
        return found["text"]

    async def command(self, *arguments: str) -> str:
        async with legato("worker", *arguments, environ=self.environ) as process:
            assert await process.end() == 0, process.output
            return process.output


@contextlib.asynccontextmanager
async def world(url: str, directory: Path, prefix: str = "", **more: str) -> AsyncIterator[World]:
    environ = ENVIRON | {
        "REDIS_URL": url,
        "LEGATO_REDIS_PREFIX": prefix,
        "LEGATO_AUTH_JWT_SECRET": SECRET,
        "LEGATO_PROVIDER_NAME": "scripted",
        "DATABASE_URL": f"sqlite:///{directory}/turns.db",
    }
    mine = {
        name: value for name, value in environ.items() if not name.startswith(("REVERB", "LEGATO_SERVER"))
    }
    async with (
        legato("broadcaster", "--port", "0", environ=environ | more) as broadcaster,
        legato("worker", environ=mine) as worker,
    ):
        port = int((await broadcaster.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
        await worker.line("ready: queue ai-streaming")
        yield World(mine, broadcaster, worker, port)
        for process in (broadcaster, worker):
            with contextlib.suppress(ProcessLookupError):  # it was told to drain
                process.process.terminate()
            assert await process.end() == 0
            assert "Traceback" not in process.output
            assert PASSWORD not in process.output


async def everything_works(stage: World) -> None:
    """What needs each part that touches Redis."""
    async with client(stage.port) as ann, client(stage.port) as bob:
        await ann.subscribe("private-ai-chat.7")
        assert await stage.chat(ann)
        await bob.subscribe("cache-news")
        await bob.receive()
        event = {"name": "e", "data": "x", "channel": "cache-news"}
        assert await post(stage.port, EVENTS, event) == (200, {})
        assert (await bob.receive())["data"] == "x"
        assert (await call(stage.port, "/up?ready", method="GET"))[0] == 200
    async with asyncio.timeout(30):
        while await workers_of(stage) != [("process", 1)]:  # noqa: ASYNC110 - signs of life come once a second
            await asyncio.sleep(0.1)


async def workers_of(stage: World) -> list[tuple[str, int | None]]:
    """What ``status`` says of each: its kind, and how many jobs it has done if it has said so."""
    status = json.loads(await stage.command("status", "--json"))
    return [(worker["kind"], worker.get("jobs")) for worker in status["workers"]]


async def every_action_works(stage: World) -> None:
    assert await stage.command("pause") == "paused: all queues\n"
    assert await stage.command("continue") == "continued: all queues\n"
    assert await stage.command("dead", "list") == "no dead letters\n"
    assert "ordered to drain: supervisors 0, processes 1" in await stage.command("drain", "--wait", "60")
    assert await stage.worker.end() == 0  # before it is sent a signal, which could come when it hears none


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A CA of our own, and a server's certificate for 127.0.0.1 that it has signed."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def secure(certificates: Path) -> Iterator[TcpServer]:
    """A server that speaks TLS alone, and lets nobody in but the user that the documents describe."""
    with SecureServer.started(SYSTEM, *tls_options(certificates)) as server:
        grant(server)
        yield server


class SecureServer(TcpServer):
    def _take(self, port: int) -> None:
        super()._take(port)
        self._command[self._command.index("--bind") - 1] = "0"
        self._command += ["--tls-port", str(port)]


def tls_options(folder: Path) -> tuple[str, ...]:
    files = {"cert-file": "server.pem", "key-file": "server.key", "ca-cert-file": "ca.pem"}
    named = (word for name, file in files.items() for word in (f"--tls-{name}", str(folder / file)))
    return (*named, "--tls-auth-clients", "no")


async def test_tls_and_a_user_who_may_do_no_more_than_is_needed(secure, certificates, tmp_path):
    url = f"rediss://legato:{PASSWORD}@{secure.address}?ssl_ca_certs={certificates}/ca.pem"
    async with world(url, tmp_path) as stage:
        await everything_works(stage)
        await every_action_works(stage)
    assert denied(secure) == []


async def test_with_a_prefix_no_name_is_without_it(tmp_path):
    """Redis lets the user touch nothing else, and would say so if it tried to."""
    with TcpServer.started(SYSTEM) as server:
        rules = [f"{rule[0]}shop:{rule[1:]}" if rule[0] in "~&" else rule for rule in least_rights.rules()]
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "legato", f">{PASSWORD}", *rules)
        async with world(f"redis://legato:{PASSWORD}@{server.address}", tmp_path, "shop:") as stage:
            await everything_works(stage)
            await every_action_works(stage)
            await a_supervisor_is_seen(stage)
        assert denied(server) == []


async def a_supervisor_is_seen(stage: World) -> None:
    """One that balances looks at its queues too."""
    more = ("--processes", "2", "--balance", "auto")
    async with legato("worker", *more, environ=stage.environ) as process, asyncio.timeout(60):
        while True:
            workers = json.loads(await stage.command("status", "--json"))["workers"]
            if Counter(worker["kind"] for worker in workers) == {"supervisor": 1, "process": 1}:
                break
        process.process.terminate()
        assert await process.end() == 0


@pytest.mark.parametrize(("place", "prefix"), [("/3", ""), ("/0", "shop:")])
async def test_two_installations_chat_on_one_redis_and_neither_hears_the_other(place, prefix, tmp_path):
    (tmp_path / "other").mkdir()
    with TcpServer.started(SYSTEM) as server:
        async with (
            world(f"redis://{server.address}/0", tmp_path) as one,
            world(f"redis://{server.address}{place}", tmp_path / "other", prefix) as other,
            client(other.port) as bob,
        ):
            await bob.subscribe("private-ai-chat.7")
            await everything_works(one)
            assert await one.command("pause") == "paused: all queues\n"
            assert await other.chat(bob)  # its worker is not paused, and these are the only tokens
            jobs = [json.loads(await stage.command("status", "--json")) for stage in (one, other)]
            assert [[worker["jobs"] for worker in status["workers"]] for status in jobs] == [[1], [1]]
            assert [status["queues"][0]["paused"] for status in jobs] == [True, False]


async def test_whom_the_certificate_does_not_convince_does_not_start(secure, tmp_path):
    url = f"rediss://legato:{PASSWORD}@{secure.address}"
    for command in ("broadcaster", "worker"):
        environ = ENVIRON | {"REDIS_URL": url, "LEGATO_PROVIDER_NAME": "scripted"}
        if command == "worker":
            environ = {"REDIS_URL": url, "LEGATO_PROVIDER_NAME": "scripted"}
        async with legato(command, environ=environ) as process:
            assert await process.end() == 1
            assert "certificate verify failed" in process.output
            assert PASSWORD not in process.output
            assert len(process.output.splitlines()) == 1


async def test_a_wrong_password_is_not_shown(secure, certificates):
    wrong = "hush-another-one"
    url = f"rediss://legato:{wrong}@{secure.address}?ssl_ca_certs={certificates}/ca.pem"
    async with legato("broadcaster", environ=ENVIRON | {"REDIS_URL": url}) as process:
        assert await process.end() == 1
        assert "invalid username-password" in process.output
        assert wrong not in process.output


async def test_a_cluster_with_tls_and_such_a_user(certificates, tmp_path):
    options = (*tls_options(certificates), "--tls-cluster", "yes")
    with SecureCluster(SYSTEM, 3, 0, *options) as cluster:
        for server in cluster.servers:
            grant(server)
        hosts = ",".join(server.address for server in cluster.servers[:2])
        url = f"rediss+cluster://legato:{PASSWORD}@{hosts}?ssl_ca_certs={certificates}/ca.pem"
        async with world(url, tmp_path) as stage:
            await everything_works(stage)
        assert [denied(server) for server in cluster.servers] == [[], [], []]


class SecureCluster(Cluster):
    kind = SecureServer


async def test_sentinels_with_tls_and_a_password_of_their_own(secure, certificates):
    files = {"cert": "server.pem", "key": "server.key"}
    lines = [f"tls-{name}-file {certificates / file}" for name, file in files.items()]
    lines += [f"tls-ca-cert-file {certificates}/ca.pem", "tls-auth-clients no", "tls-replication yes"]
    with SecureSentinel.started(SYSTEM, *lines) as sentinel:
        with sentinel.client() as admin:
            admin.execute_command("SENTINEL", "MONITOR", "mymaster", "127.0.0.1", secure.port, 1)
            rules = ("-@all", "+sentinel|get-master-addr-by-name")
            admin.execute_command("ACL", "SETUSER", "watcher", "on", f">{PASSWORD}", *rules)
        url = f"rediss+sentinel://legato:{PASSWORD}@{sentinel.address}/mymaster?ssl_ca_certs={certificates}/ca.pem"
        user = f"sentinel_username=watcher&sentinel_password={PASSWORD}"
        async with redis_client(f"{url}&{user}") as redis:
            assert await redis.set("legato:x", "1")
        async with redis_client(f"{url}&{user}-wrong") as redis:
            with pytest.raises(RedisError, match="no Sentinel says where the master is") as caught:
                await redis.ping()
        assert PASSWORD not in str(caught.value)


class SecureSentinel(SentinelServer):
    def _take(self, port: int) -> None:
        super()._take(port)
        config = self.directory / "sentinel.conf"
        config.write_text(config.read_text().replace(f"port {port}\n", f"port 0\ntls-port {port}\n"))


async def test_sentinels_promote_another_master_and_chat_goes_on(tmp_path):
    with Sentinels(SYSTEM, sentinels=1) as sentinels:
        nobody = f"127.0.0.1:1,{sentinels.url.removeprefix('redis+sentinel://')}"
        async with world(f"redis+sentinel://{nobody}", tmp_path) as stage, client(stage.port) as ann:
            await ann.subscribe("private-ai-chat.7")
            assert await stage.chat(ann)
            old = sentinels.master
            old.kill()
            await until(lambda: sentinels.master is not old, 80)
            await stage.broadcaster.line("Redis connection lost")
            await stage.worker.line("Redis is back")
            async with asyncio.timeout(80):
                while (await call(stage.port, "/up?ready", method="GET"))[0] != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert await stage.chat(ann)
