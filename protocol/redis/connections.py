"""Clients of Redis: of one server, of the master behind Sentinels, and of a Cluster.

:func:`connect` makes one. Guarantees of all of them:

* A command is sent once, but for what a server has refused to carry out (MOVED, ASK, TRYAGAIN), and as often
  again as ``repeats`` says after a lost connection.
* A connection is used only with a master that serves: not with a replica, and not while it loads its data.
  When a server turns out to be a replica, all connections to it are closed.
* What is lost is an error of redis-py: ``ConnectionError`` or ``TimeoutError`` when the command may have been
  carried out, :class:`UnavailableError` when it was not.

redis-py's own clients of Clusters and Sentinels are not used; docs/decisions/0008 says why.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import hiredis
from redis import exceptions
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from legato.protocol.names import Names
from legato.protocol.redis_url import Address

from .cluster import ASK_SECONDS, Cluster
from .internals import ConnectionInternals, Parser
from .pipeline import RedisClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from legato.protocol.redis_url import Plan

    from .pipeline import Named

Find = Callable[[], Awaitable[Address]]


class UnavailableError(exceptions.ResponseError):
    """The server cannot carry the command out now, and may be able to later.

    It has too few replicas or cannot write to its disk (NOREPLICAS, MISCONF), or it has ended a blocking read
    since it is no master any more (UNBLOCKED).
    """


class _Parser(Parser):
    EXCEPTION_CLASSES: Final = Parser.EXCEPTION_CLASSES | dict.fromkeys(
        ("NOREPLICAS", "MISCONF", "UNBLOCKED"), UnavailableError
    )


class _Link:
    """What the connections of one client have in common.

    :ivar mode: the server mode required, as ``HELLO`` names it.
    :ivar find: asks where the master is; None if the address is fixed.
    :ivar made: the connections that exist.
    """

    def __init__(self, mode: str, find: Find | None = None) -> None:
        self.mode = mode
        self.find = find
        self.made: WeakSet[_Checked] = WeakSet()

    def demoted(self, where: str) -> None:
        """The server at ``where`` is not a master any more: close its connections before their next use."""
        for connection in self.made:
            if connection.where == where:
                connection.mark_for_reconnect()  # type: ignore[no-untyped-call]


_EXPECTED_URL: Final = {
    "standalone": "redis://",
    "cluster": "redis+cluster://",
    "sentinel": "redis+sentinel://",
}


class _Checked(ConnectionInternals):
    """A connection to a server that is a master, runs in the mode that is wanted, and serves.

    Without the check a replica would accept SPUBLISH as a master does, and tell its own subscribers alone.
    Also turns the bare RuntimeError of uvloop's closed transports into redis-py's ``ConnectionError``.
    """

    def __init__(self, *, link: _Link, **options: Any) -> None:
        super().__init__(parser_class=_Parser, **options)
        self._link = link
        link.made.add(self)

    @property
    def where(self) -> str:
        """Host and port, or path, of the server."""
        raise NotImplementedError

    async def connect(self) -> None:
        """See redis-py."""
        if self.should_reconnect():  # type: ignore[no-untyped-call]
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """See redis-py; then check what the server is, and whether it serves already.

        :raises ConnectionError: it is a replica, or runs in another mode.
        :raises BusyLoadingError: it is still loading its data.
        """
        await super().on_connect_check_health(check_health)
        await self.send_packed_command(self.pack_commands([("HELLO",), ("PING",)]), check_health=False)
        told = await self._tell()
        if isinstance(pong := await self._tell(), Exception):
            raise pong  # a loading server accepts SPUBLISH, but has no subscribers yet
        if isinstance(told, Exception):  # a proxy may not know the command
            return
        server = dict(zip(told[::2], told[1::2], strict=True))
        mode, role = server.get(b"mode", b"").decode(), server.get(b"role", b"")
        if mode in _EXPECTED_URL and mode != self._link.mode:
            raise LostError(
                f"{self.where} runs in {mode} mode: its address begins with {_EXPECTED_URL[mode]}"
            )
        if role in (b"slave", b"replica") and mode != "cluster":  # a Cluster's nodes redirect by themselves
            self._link.demoted(
                self.where
            )  # a connection that only listens, like the bus's, never gets READONLY
            raise LostError(f"{self.where} is a replica, not a master")

    def pack_command(self, *args: Any) -> list[bytes]:
        """See redis-py."""
        return [_packed(args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """See redis-py."""
        return [b"".join([_packed(tuple(command)) for command in commands])]

    async def _tell(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - redis-py's own
        try:
            return await self.read_response(timeout=timeout)
        except exceptions.ResponseError as error:
            return error

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See :class:`.pipeline.Spare`. Repeats as often as :func:`connect` was told."""
        answers: list[Any] = await self.retry.call_with_retry(
            lambda: self._exchange(commands), lambda _error: self.disconnect(nowait=True)
        )
        return answers

    async def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self.should_reconnect() or not self.is_connected or await self._is_unusable():  # type: ignore[no-untyped-call]
            await self.disconnect(nowait=True)
            await self.connect()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self.write(self.pack_commands(commands))
                return await self._replies(len(commands))
        except BaseException as error:  # the next read would return the answer to another command
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise exceptions.TimeoutError(f"Timeout reading from {self.where}") from error
            if isinstance(error, (OSError, RuntimeError)):
                raise LostError(f"Error while talking to {self.where}: {error}") from error
            raise

    async def _is_unusable(self) -> bool:
        """Whether it is closed, has unexpected data, or does not answer the health check."""
        try:
            await self.check_health()  # type: ignore[no-untyped-call]
            return self.is_cut() or bool(await self.can_read())
        except RedisError:
            return True

    async def _replies(self, count: int) -> list[Any]:
        """Read so many replies, errors of single commands in their places.

        Replies that came in one read are taken without a timer for each, as redis-py would set.

        :raises ConnectionError: the server is a replica now, or the connection is lost.
        """
        replies: list[Any] = []
        while len(replies) < count:
            replies.append(await self._tell(math.inf))
            for reply in itertools.islice(self.buffered(), count - len(replies)):
                if isinstance(reply, exceptions.ReadOnlyError):
                    raise await self._is_replica_now() from reply
                if isinstance(reply, LostError):
                    raise reply
                replies.append(reply)
        return replies

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        """See redis-py."""
        try:
            await super().send_packed_command(*arguments, **options)
        except RuntimeError as error:
            raise LostError("the connection is closed") from error

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """See redis-py."""
        try:
            return await super().read_response(*arguments, **options)
        except exceptions.ReadOnlyError as error:
            raise await self._is_replica_now() from error

    async def _is_replica_now(self) -> LostError:
        self._link.demoted(self.where)
        await self.disconnect(nowait=True)
        return LostError(f"{self.where} is a replica now")


def _packed(command: tuple[Any, ...]) -> bytes:
    """The command as sent. redis-py encodes each word in Python, which costs far more."""
    name = command[0]
    if isinstance(name, str) and " " in name:  # such as XGROUP CREATE: two words for the server
        command = (*name.split(), *command[1:])
    try:
        packed: bytes = hiredis.pack_command(command)
    except TypeError as error:
        raise exceptions.DataError(f"{name}: {error}") from error
    return packed


class _Found(_Checked):
    """A connection over TCP. Asks for the address every time it connects if its link says how."""

    host: str
    port: int

    @property
    def where(self) -> str:
        """See :class:`_Checked`."""
        return f"{self.host}:{self.port}"

    async def locate(self) -> None:
        """See :class:`.internals.ConnectionInternals`."""
        if self._link.find is not None:
            self.host, self.port = await self._link.find()


class _Plain(_Found, Connection):
    pass


class _Secure(_Found, SSLConnection):
    pass


class _Local(_Checked, UnixDomainSocketConnection):
    @property
    def where(self) -> str:
        """See :class:`_Checked`."""
        return str(self.path)


def connect(plan: Plan, prefix: str = "", *, repeats: int = 0, **options: Any) -> Named:
    """Make the client that ``plan`` describes. Nothing is sent yet.

    :param plan: the address, taken apart (:func:`legato.protocol.redis_url.parse`).
    :param prefix: of all names that the installation uses.
    :param repeats: how often a command is sent again, at once, after its connection was lost. The first one
        may have been carried out all the same, so the command must be safe to repeat.
    :param options: of :class:`BlockingConnectionPool`, as ``max_connections`` and ``socket_timeout``.
        What the address says takes precedence. On a Cluster each master has a pool of its own.
    """
    # RESP2 regardless of redis-py's default: the shape of many answers depends on it.
    options = options | _settings(plan) | {"protocol": 2, "retry": Retry(NoBackoff(), repeats)}
    names = Names(prefix, plan.database)
    if plan.kind == "cluster":
        link = _Link("cluster")
        return Cluster(
            plan,
            lambda address: BlockingConnectionPool(**options, link=link, **address._asdict()),
            names,
        )
    if plan.kind == "sentinel":
        options["link"] = _Link("standalone", _Sentinels(plan).master)
    elif plan.path:
        options |= {"link": _Link("standalone"), "path": plan.path}
    else:
        options |= {"link": _Link("standalone"), **plan.addresses[0]._asdict()}
    return RedisClient(BlockingConnectionPool(**options, db=plan.database), names)


def _settings(plan: Plan) -> dict[str, Any]:
    kind = _Local if plan.path else _Secure if plan.tls else _Plain
    settings = {name: value for name, value in plan.options.items() if not name.startswith("sentinel_")}
    if not plan.tls:
        settings = {name: value for name, value in settings.items() if not name.startswith("ssl_")}
    return settings | {
        "connection_class": kind,
        "username": plan.username or None,
        "password": plan.password or None,
    }


class _Sentinels:
    """Finds the address of the master by asking Sentinels."""

    def __init__(self, plan: Plan) -> None:
        self._name = plan.master
        self._addresses = list(plan.addresses)
        self._kind = SSLConnection if plan.tls else Connection
        tls = {name: value for name, value in plan.options.items() if name.startswith("ssl_") and plan.tls}
        self._options: dict[str, Any] = {
            "username": plan.options.get("sentinel_username"),
            "password": plan.options.get("sentinel_password"),
            "protocol": 2,
            "socket_timeout": ASK_SECONDS,
            "socket_connect_timeout": ASK_SECONDS,
            **tls,
        }

    async def master(self) -> Address:
        """Ask one Sentinel after the other, each for :data:`ASK_SECONDS` at most.

        :raises ConnectionError: none of them knows. The text names each with its reason.
        """
        reasons = []
        for address in list(self._addresses):
            try:
                found = await self._ask(address)
            except (RedisError, OSError, RuntimeError) as error:
                reasons.append(f"{address.host}:{address.port}: {error}")
                continue
            if found is not None:
                self._addresses.remove(address)  # ask the one that answered first next time
                self._addresses.insert(0, address)
                return found
            reasons.append(f"{address.host}:{address.port}: knows no master {self._name}")
        raise LostError(f"no Sentinel says where the master is ({'; '.join(reasons)})")

    async def _ask(self, address: Address) -> Address | None:
        connection: AbstractConnection = self._kind(host=address.host, port=address.port, **self._options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            answer = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        return None if answer is None else Address(answer[0].decode(), int(answer[1]))
