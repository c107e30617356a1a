"""The client of one server, with pipelines that cost little processor time.

redis-py takes a connection from its pool, sets timers and keeps statistics for each pipeline and each reply.
Here most pipelines have a connection outside of the pool, and one timer (figures: docs/decisions/0008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from legato.protocol.names import Names

SPARES: Final = 8
"""Maximum number of connections outside of the pool. Pipelines that find none free use the pool."""


class Spare(Protocol):
    """A connection that the pool's class makes and the pool does not count."""

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one write. Answers their replies, with errors in the places of replies.

        Connects first if need be.

        :raises RedisError: the connection is lost. Any of the commands may have been carried out.
        """

    async def disconnect(self, nowait: bool = False) -> None:
        """See redis-py."""


class Named(Redis):
    """A client that knows the names of its installation.

    :ivar names: of the installation's keys and channels. No others are used with this client.
    """

    names: Names

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands in one write. Answers their replies as they come, with errors in their places.

        :raises RedisError: the connection is lost. Any of the commands may have been carried out.
        """
        async with self.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers


class RedisClient(Named):
    """A client of one server: redis-py's, but for :meth:`pipeline`. Closes ``pool`` when it is closed."""

    def __init__(self, pool: BlockingConnectionPool, names: Names) -> None:
        super().__init__(connection_pool=pool)
        self.names = names
        self.auto_close_connection_pool = True
        self._idle: list[Spare] = []
        self._made = 0
        self._closed = False

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """See redis-py."""
        del shard_hint
        return LeanPipeline(self, transaction)

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See :class:`Named`."""
        spare = self.take_spare()
        if spare is None:
            return await super().exchange(commands)
        try:
            return await spare.exchange(commands)
        finally:
            await self.give_back(spare)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See redis-py. Scripts, which are most of what is sent, cost half as much here."""
        if args[0] != "EVALSHA" or options:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        (reply,) = await self.exchange([args])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def take_spare(self) -> Spare | None:
        """A connection that nobody else uses, to be given back; None if :data:`SPARES` are in use."""
        if self._idle:
            return self._idle.pop()
        if self._closed or self._made >= SPARES:
            return None
        self._made += 1
        spare: Spare = self.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        return spare

    async def give_back(self, spare: Spare) -> None:
        """Take back what :meth:`take_spare` gave."""
        if self._closed:
            await spare.disconnect(nowait=True)
        else:
            self._idle.append(spare)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """See redis-py."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)
        await super().aclose(close_connection_pool)


class LeanPipeline(Pipeline):
    def __init__(self, client: RedisClient, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """See redis-py."""
        spare = self._client.take_spare() if self._is_plain() else None
        if spare is None:
            answers: list[Any] = await super().execute(raise_on_error)
            return answers
        commands, self.command_stack = list(self.command_stack), []
        try:
            replies = await spare.exchange([args for args, _ in commands])
        finally:
            await self._client.give_back(spare)
        answers = [self._shaped(args[0], reply) for (args, _), reply in zip(commands, replies, strict=True)]
        if raise_on_error:
            self.raise_first_error(commands, answers)
        return answers

    def _is_plain(self) -> bool:
        """Whether nothing in it needs redis-py: a transaction, WATCH, a script to load, options."""
        special = self.is_transaction or self.explicit_transaction or self.watching or self.scripts
        return bool(self.command_stack) and not special and not any(map(_is_special, self.command_stack))

    def _shaped(self, name: str | bytes, reply: Any) -> Any:
        shape = None if isinstance(reply, Exception) else self.response_callbacks.get(name)
        return reply if shape is None else shape(reply)


async def awaited(answer: Any) -> Any:
    """The answer of a plain command, whose type in redis-py allows for a synchronous client too."""
    return await answer


def _is_special(command: tuple[tuple[Any, ...], Mapping[str, Any]]) -> bool:
    """Whether options say how its answer is to be read."""
    return bool(command[1].keys() - {"keys"})
