"""Carries out a plan on a cluster and makes the record for the auditor."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from . import ledger
from .audit import audit
from .cluster import guest_names
from .errors import ChaosError
from .faults import Faults
from .plan import LEASE
from .programs import AGENT
from .readers import ROOM
from .record import ENDS, Record, RoomRecord, Sent
from .remains import Remains, turns
from .script import NEEDS_APPROVAL, call_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .app import ChatApp
    from .cluster import ChaosCluster
    from .plan import ChaosPlan, PlannedFault, PlannedSend, Visit
    from .record import Rules

PHASES: Final = 4

END_SECONDS: Final = 120.0
"""Seconds after the last fault in which every reply must end, and then every reader must know it."""

HEARD_SECONDS: Final = 40.0
"""Seconds in which nodes must then recover missed frames and agree on presence."""

QUIET_SECONDS: Final = 4.0
"""Seconds without a violation at the end: longer than the hold-back of webhooks."""

WAITED_FOR: Final = frozenset({"missing ending", "ghost", "absent", "missing webhook"})

OK: Final = 200
CONFLICT: Final = 409

POLL: Final = 0.3
PROGRESS: Final = 5.0


def user_names(count: int) -> list[str]:
    """Users whose ids are numbers, and users whose ids are text."""
    return [f"user-{number}" if number % 2 else str(100 + number) for number in range(count)]


class ChaosRun:
    """One run.

    :param report: called with a line now and then.
    """

    def __init__(
        self, plan: ChaosPlan, cluster: ChaosCluster, app: ChatApp, report: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._app = app
        self._report = report
        self._users = user_names(cluster.options.users)
        self._remains = Remains(lambda: cluster.store.client)
        self._faults = Faults(cluster, self._cancel_held)
        self._sent: dict[str, Sent] = {}
        self._visits: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._cancels = 0
        self._begin = 0.0

    @property
    def done(self) -> Counter[str]:
        """Faults that were carried out, by kind."""
        failing = sum(bool(sent.script.fault) for sent in self._sent.values())
        calling = sum(bool(sent.script.calls) for sent in self._sent.values())
        return self._faults.done + Counter(cancel=self._cancels, provider=failing, tools=calling)

    async def carry_out(self, rules: Rules) -> Record:
        """Carry out the plan, wait until everything has ended, and collect the record.

        :raises ChaosError: something failed that is not one of the faults.
        """
        self._begin = time.monotonic()
        chores = [asyncio.create_task(self._watch_ends()), asyncio.create_task(self._tell_progress())]
        try:
            self._say(1, f"faults happen, for {self._cluster.options.minutes:g} minutes")
            await self._do_all()
            self._say(2, "no more faults: waiting for what still runs")
            await self._within(END_SECONDS, self._all_ended)
            await self._within(5 * LEASE, self._queue_is_empty)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
        self._say(3, "the readers come to an end")
        self._cluster.readers.tell("settle")
        await self._cluster.readers.reached("settled", END_SECONDS)
        self._say(4, "the nodes recover what they missed, and all is compared")
        return await self._heard(rules)

    def _say(self, phase: int, what: str) -> None:
        self._report(f"phase {phase} of {PHASES}: {what}")

    async def _heard(self, rules: Rules) -> Record:
        """The record, once the nodes have recovered what they missed, or their time is over."""
        now = time.monotonic()
        deadline, quiet_since = now + HEARD_SECONDS, now
        while True:
            record = await self._record(rules)
            now = time.monotonic()
            if any(finding.kind in WAITED_FOR for finding in audit(record).findings):
                quiet_since = now
            if now > deadline or now - quiet_since > QUIET_SECONDS:
                return record
            await asyncio.sleep(POLL)

    async def _do_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for send in self._plan.sends:
                    group.create_task(self._at(send.at, self._send, send))
                for fault in self._plan.faults:
                    group.create_task(self._at(fault.at, self._faults.carry_out, fault))
                for visit in self._plan.visits:
                    group.create_task(self._at(visit.at, self._visit, visit))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _at(
        self, at: float, action: Callable[[Any], Awaitable[None]], what: PlannedSend | PlannedFault | Visit
    ) -> None:
        await asyncio.sleep(max(0.0, self._begin + at - time.monotonic()))
        await action(what)

    async def _visit(self, visit: Visit) -> None:
        readers, port = self._cluster.readers, self._cluster.links.readers[visit.node].port
        async with self._visits[visit.guest]:  # also on a machine that is late: one after the other
            readers.tell("come", guest=visit.guest, port=port)
            if visit.seconds is not None:
                await asyncio.sleep(visit.seconds)
                readers.tell("go", guest=visit.guest, unsubscribes=visit.unsubscribes)

    # --- messages

    async def _send(self, send: PlannedSend) -> None:
        user, at = self._users[send.user], time.time()
        key = f"{self._cluster.options.seed}-{send.user}-{send.at}"
        agent = AGENT if send.script.calls else ""
        message_id = await self._app.send(user, send.node, send.script.line, key, agent)
        self._sent[message_id] = Sent(message_id, user, send.script, at)
        self._cluster.readers.tell("expect", user=user, id=message_id)
        deciding = asyncio.create_task(self._decide(send, user, message_id)) if send.needs_approval else None
        if send.cancel is not None:
            await asyncio.sleep(send.cancel)
            await self._cancel(message_id, send.node)
        if deciding is not None:
            await deciding

    async def _decide(self, send: PlannedSend, user: str, message_id: str) -> None:
        """Decide on each call that needs an approval, twice the same; in between the opposite is refused.

        :raises ChaosError: a decision had another answer than it must have.
        """
        await asyncio.sleep(send.decides)
        left = [number for number, call in enumerate(send.script.calls) if call.tool in NEEDS_APPROVAL]
        while left and self._sent[message_id].ended is None:
            call, approve = call_id(message_id, left[0]), send.script.approve
            answers = []
            for verdict in (approve, not approve, approve):
                answers.append(await self._app.decide(user, send.node, message_id, call, approve=verdict))
                if answers[0] != OK:
                    break
            if answers[0] == OK:
                if answers not in (
                    [OK, CONFLICT, OK],
                    [OK, CONFLICT, CONFLICT],
                ):  # it may have ended meanwhile
                    raise ChaosError(f"{message_id}: decisions on {call} were answered {answers}")
                left.pop(0)
            elif answers[0] == CONFLICT:
                return  # it has ended
            else:
                await asyncio.sleep(POLL)

    async def _cancel(self, message_id: str, node: int) -> None:
        sent = self._sent[message_id]
        if not await self._app.cancel(sent.user, node, message_id):
            raise ChaosError(f"{message_id}: the cancel was refused")
        index = await self._remains.next_index(sent)
        self._change(message_id, cancel_index=index)
        self._cancels += 1

    async def _cancel_held(self, pid: int) -> None:
        """Cancel every second message of a worker process."""
        held = [message_id for message_id in await self._remains.held_by(pid) if message_id in self._sent]
        for message_id in held[::2]:
            await self._cancel(message_id, node=0)

    def _change(self, message_id: str, **fields: Any) -> None:
        self._sent[message_id] = replace(self._sent[message_id], **fields)

    # --- waiting

    async def _watch_ends(self) -> None:
        """Note when each message has ended: by a time after the state has been seen."""
        while True:
            running = [sent for sent in self._sent.values() if sent.ended is None]
            for sent, state in zip(running, await self._remains.states(running), strict=True):
                if state in ENDS:
                    self._change(sent.id, ended=time.time())
            await asyncio.sleep(POLL)

    async def _within(self, seconds: float, reached: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition with a time limit; afterwards the auditor reports what is wrong."""
        deadline = time.monotonic() + seconds
        while not await reached():
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(POLL)

    async def _all_ended(self) -> bool:
        return all(sent.ended is not None for sent in self._sent.values())

    async def _queue_is_empty(self) -> bool:
        return not await self._remains.jobs_left()

    @property
    def progress(self) -> str:
        """How far it is."""
        ended = sum(sent.ended is not None for sent in self._sent.values())
        seconds = time.monotonic() - self._begin if self._begin else 0.0
        faults = sum(self._faults.done.values())
        return f"{seconds:4.0f} s: {len(self._sent)} messages, {ended} ended, {faults} faults"

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            self._report(self.progress)

    async def _record(self, rules: Rules) -> Record:
        rows = await asyncio.to_thread(turns, self._cluster.programs.database)
        kept = {sent.id: await self._remains.kept(sent, rows[sent.id]) for sent in self._sent.values()}
        return Record(
            sent=list(self._sent.values()),
            kept={message_id: found for message_id, found in kept.items() if found is not None},
            readers=self._cluster.readers.record(),
            rules=rules,
            strangers=sorted(await self._remains.message_ids() - set(self._sent)),
            jobs_left=await self._remains.jobs_left(),
            dead=await self._remains.dead(),
            room=await self._room(),
            calls=await asyncio.to_thread(ledger.read, self._cluster.programs.ledger),
        )

    async def _room(self) -> RoomRecord:
        staying = {visit.guest for visit in self._plan.visits if visit.seconds is None}
        names = [name for number, name in enumerate(guest_names()) if number in staying]
        nodes = range(self._cluster.options.nodes)
        receiver = self._cluster.receiver
        return RoomRecord(
            presence=ROOM,
            users={node: await self._app.users(node, ROOM) for node in nodes},
            counts={node: await self._app.counts(node) for node in nodes},
            visitors=self._cluster.readers.visitors(names),
            told=list(receiver.told),
            kills=list(self._faults.kills),
            refused=receiver.refused,
        )
