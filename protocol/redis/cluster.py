"""All masters of a Redis Cluster as one client.

Only commands whose first key :func:`.slots.key_of` finds are routed. A command with several keys needs all of
them in one slot, which hash tags in the names see to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis import exceptions
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from legato.protocol.redis_url import Address

from . import slots as cluster
from .pipeline import Named, RedisClient
from .slots import SlotMap

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool, Redis

    from legato.protocol.names import Names
    from legato.protocol.redis_url import Plan

Command = tuple[tuple[Any, ...], Mapping[str, Any]]

ASK_SECONDS: Final = 2.0
"""Timeout of a query for the map of slots, or to a Sentinel. Then the next server is asked."""

LEARN_EVERY: Final = 0.1
"""Minimum seconds between two queries for the map of slots."""

HOPS: Final = 16
"""Maximum number of redirects of a command, waits for keys being migrated included."""

TRY_AGAIN: Final = 0.05
"""Seconds before a command with migrating keys is sent again; grows by as much each time."""


class _Hop(NamedTuple):
    """Where a command goes next. ``asking``: its slot is being migrated there."""

    address: Address
    asking: bool = False


class Cluster(Named):
    """All masters of a Cluster as one client: each command goes to the node that has its key's slot.

    A transaction must be of one slot. Any other pipeline is split by node: commands of one slot stay in
    order, and a node that fails does not affect those of others. ``SCRIPT LOAD`` goes to every master.

    :param plan: its addresses are asked for the map of slots until one answers.
    :param pool: makes the connection pool of a node.
    :ivar slots: which node has which slot, as far as is known.
    """

    def __init__(self, plan: Plan, pool: Callable[[Address], BlockingConnectionPool], names: Names) -> None:
        super().__init__(connection_pool=pool(plan.addresses[0]))  # for its encoder; it never connects
        self.names = names
        self.slots = SlotMap()
        self._seeds = plan.addresses
        self._pool = pool
        self._nodes: dict[Address, Redis] = {}
        self._learning: asyncio.Future[None] | None = None
        self._learnt = 0.0

    def node(self, address: Address) -> Redis:
        """The client of one node. Made when it is first asked for, and kept."""
        if address not in self._nodes:
            self._nodes[address] = RedisClient(self._pool(address), self.names)
        return self._nodes[address]

    def masters(self) -> list[Redis]:
        """A client of each known master; none before the map is loaded."""
        return [self.node(address) for address in self.slots.masters]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """See redis-py."""
        if self._learning is not None:
            self._learning.cancel()
        for node in self._nodes.values():
            await node.aclose(close_connection_pool)

    async def learn(self) -> None:
        """Ask for the map of slots. Calls that come meanwhile share the answer.

        :raises ConnectionError: no node answers. The text names each with its reason.
        """
        if self._learning is None or self._learning.done():
            self._learning = asyncio.ensure_future(self._learn())
            self._learning.add_done_callback(_seen)
        await asyncio.shield(self._learning)

    async def _learn(self) -> None:
        reasons = []
        for address in self.slots.to_ask(self._seeds):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    answer = await self.node(address).execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
                self.slots.learn(answer, address)
            except (RedisError, OSError, cluster.SlotsError) as error:
                self.slots.suspect(address)
                reasons.append(f"{address.host}:{address.port}: {str(error) or type(error).__name__}")
            else:
                self._learnt = asyncio.get_running_loop().time()
                return
        raise LostError(f"no node of the Cluster answers ({'; '.join(reasons)})")

    async def _look(self) -> None:
        """Refresh the map if it is stale. If no node answers, the old one stays in use."""
        if not self.slots.known:
            await self.learn()
        elif self.slots.stale and asyncio.get_running_loop().time() - self._learnt > LEARN_EVERY:
            try:
                await self.learn()
            except LostError:
                self._learnt = asyncio.get_running_loop().time()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See redis-py."""
        if args[0] == "SCRIPT LOAD":
            return await self._everywhere(args, options)
        (answer,) = await self.travel([(args, options)], transaction=False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _everywhere(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run a command on every master. One that does not answer gets the script later, after NOSCRIPT.

        :raises RedisError: none answers.
        """
        await self._look()
        hops = [_Hop(address) for address in self.slots.masters]
        answers = await asyncio.gather(
            *(self._send(hop, [(args, options)], transaction=False) for hop in hops)
        )
        good = [answer for (answer,) in answers if not isinstance(answer, Exception)]
        if not good:
            raise answers[0][0]
        return good[0]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """See redis-py."""
        del shard_hint
        return _ClusterPipeline(self, transaction)

    async def travel(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        """Send commands to their nodes. Answers in the same order, with errors in the places of answers.

        :raises ClusterCrossSlotError: a transaction is of several slots.
        :raises ConnectionError: the map of slots is not known, and no node answers.
        """
        await self._look()
        slots = [self._slot(args) for args, _ in commands]
        if transaction and len(set(slots)) > 1:
            raise exceptions.ClusterCrossSlotError("a transaction of several slots")
        owners = [self.slots.masters[0] if slot is None else self.slots.owner(slot) for slot in slots]
        answers: list[Any] = [exceptions.ClusterDownError("no node has the slot")] * len(commands)
        route = {at: _Hop(owner) for at, owner in enumerate(owners) if owner is not None}
        self.slots.stale |= len(route) < len(commands)
        for turn in range(HOPS):
            groups: dict[_Hop, list[int]] = {}
            for at, hop in route.items():
                groups.setdefault(hop, []).append(at)
            sent = [
                self._send(hop, [commands[at] for at in group], transaction=transaction)
                for hop, group in groups.items()
            ]
            for group, answered in zip(groups.values(), await asyncio.gather(*sent), strict=True):
                for at, answer in zip(group, answered, strict=True):
                    answers[at] = answer
            onward = {at: self._onward(hop, answers[at], transaction) for at, hop in route.items()}
            waits = any(route[at] == hop for at, hop in onward.items())
            route = {at: hop for at, hop in onward.items() if hop is not None}
            if not route:
                break
            if waits:
                await asyncio.sleep(TRY_AGAIN * (turn + 1) / 2)
        return answers

    def _slot(self, args: tuple[Any, ...]) -> int | None:
        key = cluster.key_of(args)
        return None if key is None else cluster.slot_of(key)

    def _onward(self, hop: _Hop, answer: Any, transaction: bool) -> _Hop | None:
        """Next redirect, or None."""
        if isinstance(answer, exceptions.MovedError):  # before AskError, its base class
            address = Address(answer.host or hop.address.host, answer.port)
            self.slots.moved(answer.slot_id, address)
            return _Hop(address)
        if isinstance(answer, exceptions.AskError) and not transaction:  # a transaction waits instead
            return _Hop(Address(answer.host or hop.address.host, answer.port), asking=True)
        return hop if isinstance(answer, (exceptions.AskError, exceptions.TryAgainError)) else None

    async def _send(self, hop: _Hop, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        try:
            async with self.node(hop.address).pipeline(transaction=transaction) as pipe:
                for args, options in commands:
                    if hop.asking:
                        pipe.execute_command("ASKING")
                    pipe.execute_command(*args, **options)
                answers: list[Any] = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            if isinstance(error, (LostError, exceptions.TimeoutError, exceptions.ClusterDownError)):
                self.slots.suspect(hop.address)
            return [error] * len(commands)
        if any(isinstance(answer, exceptions.ClusterDownError) for answer in answers):
            self.slots.stale = True
        return answers[1::2] if hop.asking else answers


def _seen(future: asyncio.Future[None]) -> None:
    """Mark an error as retrieved: whoever waited may have been cancelled."""
    if not future.cancelled():
        future.exception()


class _ClusterPipeline(Pipeline):
    def __init__(self, client: Cluster, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """See redis-py."""
        commands, self.command_stack = list(self.command_stack), []
        answers = await self._client.travel(commands, transaction=self.is_transaction)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers
