"""A Redis Cluster of three masters on loopback, and masters with replicas that Sentinels watch over."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Self

import redis

from tests.redis_servers import START_SECONDS, RedisServer
from tests.waiting import wait_until

SLOTS = 16_384
BUS_OFFSET = 10_000
"""A node of a Cluster speaks to the others on its port and this."""


def free_port() -> int:
    """A port nobody has now, whose counterpart for the Cluster's bus nobody has either."""
    while True:
        port = random.randint(20_000, 50_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in (port, port + BUS_OFFSET):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port


class TcpServer(RedisServer):
    """A server on a port of 127.0.0.1 beside its socket. May be started again: the port stays."""

    def __init__(self, binary: str, *options: str) -> None:
        self._binary, self._options = binary, options
        self._take(free_port())

    def _take(self, port: int) -> None:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
        super().__init__(self._binary, *self._options, *options)
        self.port = port
        self.address = f"127.0.0.1:{port}"

    @classmethod
    def started(cls, binary: str, *options: str) -> Self:
        """One that runs: should somebody else have been faster with its port, on another."""
        for _ in range(10):
            server = cls(binary, *options)
            try:
                server.start()
            except RuntimeError as error:
                server.__exit__(None, None, None)
                if "in use" not in str(error):
                    raise
            else:
                return server
        raise RuntimeError("no free port")

    def client(self) -> redis.Redis:
        """To direct it, past whatever it wants from others."""
        return redis.Redis.from_url(self.url)


class Cluster:
    """Masters that share the slots evenly; the first ones have one of ``replicas`` each.

    Nothing fails over by itself, however long the machine stalls: see :meth:`promote`.
    """

    kind = TcpServer

    def __init__(self, binary: str, masters: int = 3, replicas: int = 0, *options: str) -> None:
        self._binary = binary
        self._count = masters, replicas
        self._options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "60000"),
            *("--cluster-require-full-coverage", "no", *options),
        )
        self.servers: list[TcpServer] = []

    @property
    def masters(self) -> list[TcpServer]:
        """Those that were given slots at the start."""
        return self.servers[: self._count[0]]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(server.address for server in self.servers)

    def __enter__(self) -> Self:
        masters, replicas = self._count
        try:
            for _ in range(masters + replicas):
                self.servers.append(self.kind.started(self._binary, *self._options))
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for server in self.servers:
            server.__exit__(None, None, None)

    def _join(self) -> None:
        count = len(self.masters)
        bounds = [SLOTS * at // count for at in range(count + 1)]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self.servers]
            for at, client in enumerate(clients):
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
                if at < count:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[at], bounds[at + 1] - 1)
            for server in self.servers[1:]:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
            ids = [_text(client.execute_command("CLUSTER", "MYID")) for client in clients]
            wait_until(lambda: all(_knows(client, len(ids)) for client in clients), what="the nodes meet")
            for at, client in enumerate(clients[count:]):
                client.execute_command("CLUSTER", "REPLICATE", ids[at])
            wait_until(lambda: all(_covers(client, count) for client in clients), what="the slots are known")
            for client in clients[count:]:
                wait_until(lambda: _linked(client), what="a replica follows")  # noqa: B023 - called at once

    def owner(self, slot: int) -> TcpServer:
        """The master that has a slot."""
        for server in self.servers:
            if server.running:
                with server.client() as client:
                    for first, last, (_, port, *_rest), *_ in client.execute_command("CLUSTER", "SLOTS"):
                        if int(first) <= slot <= int(last):
                            return next(other for other in self.servers if other.port == port)
        raise RuntimeError(f"nobody has slot {slot}")

    def begin_move(self, slot: int, target: TcpServer) -> None:
        """From now on keys of the slot may be at either."""
        source = self.owner(slot)
        with source.client() as old, target.client() as new:
            new.execute_command(
                "CLUSTER", "SETSLOT", slot, "IMPORTING", old.execute_command("CLUSTER", "MYID")
            )
            old.execute_command(
                "CLUSTER", "SETSLOT", slot, "MIGRATING", new.execute_command("CLUSTER", "MYID")
            )

    def move_keys(self, slot: int, target: TcpServer) -> None:
        """All keys that are there now."""
        with self.owner(slot).client() as old:
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, target: TcpServer) -> None:
        """The slot is the target's."""
        source = self.owner(slot)
        with target.client() as new:
            target_id = new.execute_command("CLUSTER", "MYID")
        others = [server for server in self.servers if server not in (source, target) and server.running]
        for server in (target, source, *others):
            with server.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def move(self, slot: int, target: TcpServer) -> None:
        """A slot with its keys."""
        self.begin_move(slot, target)
        self.move_keys(slot, target)
        self.end_move(slot, target)

    def promote(self, replica: TcpServer) -> None:
        """It takes the place of its master, which need not be there any more."""
        with replica.client() as client:
            client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")

    def follows(self, server: TcpServer) -> bool:
        """Whether it is a replica that has all that its master has."""
        with server.client() as client:
            return _linked(client)

    def flush(self) -> None:
        """Forget all data and scripts."""
        for server in self.masters:
            server.flush()

    def forget_scripts(self) -> None:
        """On every master."""
        for server in self.masters:
            with server.client() as client:
                client.script_flush()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _knows(client: redis.Redis, count: int) -> bool:
    nodes = _raw(client, "CLUSTER", "NODES")
    return nodes.count("connected") == count and "handshake" not in nodes


def _covers(client: redis.Redis, masters: int) -> bool:
    info = _raw(client, "CLUSTER", "INFO")
    return "cluster_state:ok" in info and len(client.execute_command("CLUSTER", "SLOTS")) == masters


def _linked(client: redis.Redis) -> bool:
    return client.info("replication").get("master_link_status") == "up"


def _raw(client: redis.Redis, *command: str) -> str:
    # As text: redis-py makes a dictionary of the answers to commands that it knows.
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return _text(connection.read_response())
    finally:
        client.connection_pool.release(connection)


class Sentinels:
    """A master, a replica, and Sentinels that promote the replica when the master is gone."""

    NAME = "mymaster"

    def __init__(self, binary: str, *options: str, sentinels: int = 3, down_after: int = 1000) -> None:
        self._binary = binary
        self._options = options
        self._sentinels = sentinels
        self._down_after = down_after
        self.servers: list[TcpServer] = []
        self.watchers: list[TcpServer] = []

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(w.address for w in self.watchers) + f"/{self.NAME}"

    def __enter__(self) -> Self:
        try:
            master = TcpServer.started(self._binary, *self._options)
            self.servers.append(master)
            replica = TcpServer.started(
                self._binary, *self._options, "--replicaof", "127.0.0.1", str(master.port)
            )
            self.servers.append(replica)
            with replica.client() as client:
                wait_until(lambda: _linked(client), what="the replica follows")
            for _ in range(self._sentinels):
                self.watchers.append(self._watcher(master))
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(watcher.client()) for watcher in self.watchers]
                wait_until(
                    lambda: all(self._ready(client) for client in clients), what="the Sentinels know all"
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for server in (*self.watchers, *self.servers):
            server.__exit__(None, None, None)

    def _watcher(self, master: TcpServer) -> TcpServer:
        watcher = SentinelServer.started(self._binary)
        with watcher.client() as client:
            quorum = self._sentinels // 2 + 1
            client.execute_command("SENTINEL", "MONITOR", self.NAME, "127.0.0.1", master.port, quorum)
            for name, value in (("down-after-milliseconds", self._down_after), ("failover-timeout", 3000)):
                client.execute_command("SENTINEL", "SET", self.NAME, name, value)
        return watcher

    def _ready(self, client: redis.Redis) -> bool:
        state = client.sentinel_master(self.NAME)
        return state["num-slaves"] == 1 and state["num-other-sentinels"] == self._sentinels - 1

    @property
    def master(self) -> TcpServer:
        """The master in the eyes of the first Sentinel."""
        with self.watchers[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self) -> None:
        """Kill the master, and wait until the replica is promoted."""
        old = self.master
        old.kill()
        wait_until(lambda: self.master is not old, what="the replica is promoted")


class SentinelServer(TcpServer):
    """A Sentinel: it has to have a file for what it learns. Its options are lines of that file."""

    def _take(self, port: int) -> None:
        super()._take(port)
        config = self.directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\nunixsocket {self.socket}\n"
            f"dir {self.directory}\nlogfile server.log\n" + "\n".join(self._options)
        )
        self._command = [self._binary, str(config), "--sentinel"]


__all__ = ["SLOTS", "START_SECONDS", "Cluster", "Sentinels", "TcpServer", "free_port"]
