"""The Redis of a run, one server or a master with replica and Sentinel, and the links to it."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .child import ClusterProcess
from .errors import ChaosError
from .proxy import ProxyLink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from .proxy import Streams

NAME: Final = "chaos"
"""The name of the master at the Sentinel."""

PATIENCE: Final = 120.0
"""Time-out for replication and promotion, in seconds: a delayed Sentinel pauses for thirty."""

PAUSE_SECONDS: Final = 5.0
"""Longest time for which the master refuses writes, so that the replica catches up."""

POLL: Final = 0.05
ASK_EVERY: Final = 0.5

_ACCEPTS: Final = re.compile(r"[Rr]eady to accept connections (at|unix)")
_WATCHES: Final = re.compile(r"\+monitor master")


class Way:
    """The links of one process to Redis. A fault affects all of them.

    :param url: the address for the process, once the links are started.
    """

    def __init__(self, links: Sequence[ProxyLink], url: Callable[[], str]) -> None:
        self._links = links
        self._url = url

    @property
    def url(self) -> str:
        """The address for the process."""
        return self._url()

    async def start(self) -> None:
        """Listen."""
        for link in self._links:
            await link.start()

    async def close(self) -> None:
        """Listen no more."""
        for link in self._links:
            await link.close()

    def cut(self) -> None:
        """See :class:`.proxy.ProxyLink`."""
        for link in self._links:
            link.cut()

    def mute(self) -> None:
        """See :class:`.proxy.ProxyLink`."""
        for link in self._links:
            link.mute()

    def slow(self) -> None:
        """See :class:`.proxy.ProxyLink`."""
        for link in self._links:
            link.slow()

    def heal(self) -> None:
        """See :class:`.proxy.ProxyLink`."""
        for link in self._links:
            link.heal()


class _Server:
    """A server with an append-only file. ``port`` is 0 for one that only listens on a unix socket."""

    def __init__(
        self, binary: str, directory: Path, sockets: Path, name: str, environ: Mapping[str, str]
    ) -> None:
        self.port = 0
        self.socket = sockets / f"{name}.sock"
        self.client = Redis.from_url(f"unix://{self.socket}")
        self._data = directory / name
        self._data.mkdir()
        self._file = directory / f"{name}.conf"
        self.child = ClusterProcess(name, [binary, str(self._file)], environ, directory, _ACCEPTS)

    def configure(self, replica_of: int = 0) -> None:
        """Write the configuration for its next start."""
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "dir": self._data,
            "appendonly": "yes",
            # Acknowledged and published writes are in the file before: a kill loses nothing.
            "appendfsync": "always",
            "save": '""',
            "daemonize": "no",
            "repl-diskless-sync-delay": 0,
        }
        lines = [f"{name} {value}" for name, value in options.items()]
        lines += [f"replicaof 127.0.0.1 {replica_of}"] if replica_of else []
        self._file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def dial(self) -> Streams:
        """A connection to it."""
        return await asyncio.open_unix_connection(self.socket)

    async def close(self) -> None:
        """End it."""
        await self.child.close()
        await self.client.aclose()


class ChaosRedis:
    """One server."""

    def __init__(self, binary: str, directory: Path, environ: Mapping[str, str]) -> None:
        self._sockets = Path(tempfile.mkdtemp(prefix="legato-chaos-"))  # a socket's path must be short
        self._directory = directory
        self._servers = [_Server(binary, directory, self._sockets, name, environ) for name in self._names()]
        self._master = self._servers[0]

    def _names(self) -> Sequence[str]:
        return ("redis",)

    @property
    def children(self) -> list[ClusterProcess]:
        """Its processes."""
        return [server.child for server in self._servers]

    @property
    def master(self) -> ClusterProcess:
        """The server that accepts writes now."""
        return self._master.child

    @property
    def client(self) -> Redis:
        """A client of that server, without links."""
        return self._master.client

    def way(self) -> Way:
        """Create the links of one more process."""
        link = ProxyLink(self._master.dial)
        return Way([link], lambda: f"redis://127.0.0.1:{link.port}")

    async def start(self) -> None:
        """Start the processes."""
        self._master.configure()
        await self._master.child.start()

    async def close(self) -> None:
        """End them."""
        for server in self._servers:
            await server.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    async def fail_over(self, seconds: float) -> None:
        """See :class:`Pair`."""
        raise NotImplementedError("one server has no replica")


class Pair(ChaosRedis):
    """A master, a replica, and a Sentinel that promotes it.

    The run tells the Sentinel when to promote: by itself it would declare a restarted or stopped server dead,
    when the replica may be behind. Each process has a link to either server and one to the Sentinel, whose
    answer about the master is changed to the port of the process' own link.
    """

    def __init__(self, binary: str, directory: Path, environ: Mapping[str, str]) -> None:
        super().__init__(binary, directory, environ)
        for server in self._servers:
            server.port = _free_port()
        self._sentinel_socket = self._sockets / "sentinel.sock"
        self._sentinel_file = directory / "sentinel.conf"
        command = [binary, str(self._sentinel_file), "--sentinel"]
        self._sentinel = ClusterProcess("sentinel", command, environ, directory, _WATCHES)
        self._ask: Any = Redis.from_url(f"unix://{self._sentinel_socket}")

    def _names(self) -> Sequence[str]:
        return ("redis", "redis-2")

    @property
    def children(self) -> list[ClusterProcess]:
        """See :class:`ChaosRedis`."""
        return [*super().children, self._sentinel]

    def way(self) -> Way:
        """See :class:`ChaosRedis`."""
        links = [ProxyLink(server.dial) for server in self._servers]

        def changed(answer: bytes) -> bytes:
            for server, link in zip(self._servers, links, strict=True):
                answer = answer.replace(_bulk(server.port), _bulk(link.port))
            return answer

        to_sentinel = ProxyLink(self._dial_sentinel, changed)
        return Way([*links, to_sentinel], lambda: f"redis+sentinel://127.0.0.1:{to_sentinel.port}/{NAME}")

    async def _dial_sentinel(self) -> Streams:
        return await asyncio.open_unix_connection(self._sentinel_socket)

    async def start(self) -> None:
        """See :class:`ChaosRedis`."""
        await super().start()
        master, replica = self._servers
        replica.configure(replica_of=master.port)
        await replica.child.start()
        await _until(lambda: _follows(replica), "the replica does not follow")
        lines = [
            f"port {_free_port()}",
            "bind 127.0.0.1",
            f"unixsocket {self._sentinel_socket}",
            f"dir {self._directory}",
            f"sentinel monitor {NAME} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {NAME} 600000",
            f"sentinel failover-timeout {NAME} 10000",
        ]
        self._sentinel_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        await self._sentinel.start()
        await _until(self._knows_the_replica, "the Sentinel does not see the replica")

    async def close(self) -> None:
        """See :class:`ChaosRedis`."""
        await self._sentinel.close()
        await self._ask.aclose()
        await super().close()

    async def _knows_the_replica(self) -> bool:
        return bool((await self._ask.sentinel_master(NAME))["num-slaves"])

    async def fail_over(self, seconds: float) -> None:
        """Kill the master when the replica has everything; promote the replica after some seconds.

        :raises ChaosError: the fail-over does not succeed.
        """
        old = self._master
        (new,) = (server for server in self._servers if server is not old)
        await _until(lambda: self._killed(old, new), f"{new.child.name} does not get to have everything")
        await asyncio.sleep(seconds)
        await _until(lambda: self._promoted(new), f"{new.child.name} is not promoted", ASK_EVERY)
        self._master = new
        old.configure(replica_of=new.port)
        old.child.up()

    async def _killed(self, old: _Server, new: _Server) -> bool:
        """Kill the master once the replica has all writes, which are paused; False if that took too long."""
        if not await _follows(new):
            return False
        pause: Any = old.client
        await pause.execute_command("CLIENT", "PAUSE", int(PAUSE_SECONDS * 1000), "WRITE")
        deadline = time.monotonic() + PAUSE_SECONDS / 2
        while time.monotonic() < deadline:
            has = (await _replication(new))["slave_repl_offset"]
            if has == (await _replication(old))["master_repl_offset"] and time.monotonic() < deadline:
                await old.child.down(signal.SIGKILL)
                return True
            await asyncio.sleep(POLL)
        await pause.execute_command("CLIENT", "UNPAUSE")
        return False

    async def _promoted(self, new: _Server) -> bool:
        _, port = await self._ask.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        if int(port) == new.port:
            return str((await _replication(new))["role"]) == "master"
        await self._ask.execute_command("SENTINEL", "FAILOVER", NAME)
        return False


async def _until(reached: Callable[[], Awaitable[bool]], what: str, every: float = POLL) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(RedisError, OSError):
            if await reached():
                return
        if time.monotonic() > deadline:
            raise ChaosError(what)
        await asyncio.sleep(every)


async def _replication(server: _Server) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", await server.client.info("replication"))


async def _follows(server: _Server) -> bool:
    return (await _replication(server)).get("master_link_status") == "up"


def _bulk(port: int) -> bytes:
    """A port as servers write it in answers."""
    return b"$%d\r\n%d\r\n" % (len(str(port)), port)


def _free_port() -> int:
    """A free port that the system does not use for outgoing connections."""
    while True:
        port = random.randint(20_000, 32_000)  # noqa: S311 - any will do
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
