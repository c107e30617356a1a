"""The plan of a run: a pure function of its options, so that a seed can be replayed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from .script import FAULT_CODES, NEEDS_APPROVAL, PlannedCall, ReplyScript

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEASE: Final = 3.0
"""Seconds of a worker's lease in a run: short, so that many take-overs fit into it."""

NODE_LEASE: Final = 5.0
"""Seconds of a node's lease in a run, for the same reason."""

GUESTS: Final = 6
"""Clients that join and leave."""

FIRST: Final = 3.0
"""Seconds before the first fault."""

EVERY: Final = (1.2, 4.0)
"""Seconds from one fault to the next: shortest and longest."""

SEND_EVERY: Final = (2.5, 8.0)
"""Seconds from one message of a user to the next."""

WITH_TOOLS: Final = 0.4
"""The share of messages whose reply calls tools."""

STAYS: Final = (1.0, 14.0)
"""Seconds that a guest stays."""

AWAY: Final = ((0.5, 2.5), (4.0, 12.0))
"""Seconds until a guest returns: before or after the webhooks of its departure are sent."""


class Kind(NamedTuple):
    """A kind of fault: its target, shortest and longest duration, and description."""

    target: str
    seconds: tuple[float, float]
    text: str


KINDS: Final = {
    "kill-worker": Kind("worker", (0.2, 2.0), "SIGKILL, start again"),
    "stop-worker": Kind("worker", (0.3, 2.0), "SIGSTOP, SIGCONT"),
    "zombie": Kind("worker", (LEASE + 2.0, LEASE + 5.0), "SIGSTOP beyond the lease, cancel what it had"),
    "drain-worker": Kind("worker", (0.2, 1.0), "SIGTERM, start again"),
    "cut-worker": Kind("worker", (0.1, 3.0), "cut off from Redis"),
    "mute-worker": Kind("worker", (0.3, 3.0), "Redis' answers are held back, then the connection is cut"),
    "slow-worker": Kind("worker", (1.0, 4.0), "slow connection to Redis"),
    "kill-node": Kind("node", (0.2, 2.0), "SIGKILL, start again"),
    "stop-node": Kind("node", (0.3, 5.0), "SIGSTOP, SIGCONT"),
    "zombie-node": Kind("node", (NODE_LEASE + 2.0, NODE_LEASE + 5.0), "SIGSTOP beyond the lease, SIGCONT"),
    "cut-node": Kind("node", (0.1, 3.0), "cut off from Redis"),
    "mute-node": Kind("node", (0.3, 3.0), "Redis' answers are held back, then the connection is cut"),
    "slow-node": Kind("node", (1.0, 4.0), "slow connection to Redis"),
    "cut-readers": Kind("readers", (0.1, 3.0), "the readers of a node are cut off"),
    "mute-readers": Kind("readers", (0.3, 3.0), "a node's frames are held back, then the connection is cut"),
    "slow-readers": Kind("readers", (1.0, 4.0), "slow connections to the readers of a node"),
    "reconnect": Kind("reader", (0.0, 2.0), "one reader disconnects and connects again"),
    "restart-redis": Kind("redis", (0.1, 1.5), "SIGKILL, start again from the append-only file"),
    "stop-redis": Kind("redis", (0.3, 2.5), "SIGSTOP, SIGCONT"),
    "fail-over": Kind("redis", (0.0, 2.5), "SIGKILL once the replica has everything, which is promoted"),
}
"""Faults of processes and connections. A seed's plan depends on their order."""

MESSAGE_KINDS: Final = {
    "provider": "the provider fails: overloaded, cut, silent, ended early, refused",
    "cancel": "the user cancels, at any time",
    "tools": "the reply calls tools, some of which the user has to approve",
}
"""Faults that are a message's own."""

ALL: Final = (*KINDS, *MESSAGE_KINDS)


@dataclass(frozen=True)
class Options:
    """What a plan depends on. ``pace``: so many times as many faults as usual."""

    seed: int
    minutes: float
    users: int = 6
    readers: int = 2
    nodes: int = 3
    workers: int = 3
    pace: float = 1.0
    faults: frozenset[str] = frozenset(ALL)

    @property
    def seconds(self) -> float:
        """Seconds in which messages are sent and faults begin."""
        return self.minutes * 60

    def targets(self, kind: str) -> int:
        """The number of possible targets of a fault."""
        counts = {"worker": self.workers, "node": self.nodes, "readers": self.nodes, "redis": 1}
        return counts.get(kind, self.users * self.readers)


class PlannedSend(NamedTuple):
    """A user submits a message through a node; ``cancel`` seconds later it is cancelled, None for never.

    :ivar decides: seconds after which the user begins to decide on calls that need an approval.
    """

    at: float
    user: int
    node: int
    script: ReplyScript
    cancel: float | None
    decides: float = 0.0

    @property
    def needs_approval(self) -> bool:
        """Whether a call of it waits for the user."""
        return any(call.tool in NEEDS_APPROVAL for call in self.script.calls)


class PlannedFault(NamedTuple):
    """A fault of a process or a connection; ``target`` counts from 0."""

    at: float
    kind: str
    target: int
    seconds: float


class Visit(NamedTuple):
    """A guest joins through a node and leaves after some seconds; None for staying to the end.

    :ivar unsubscribes: it unsubscribes when it leaves; otherwise it only closes its connection.
    """

    at: float
    guest: int
    node: int
    seconds: float | None
    unsubscribes: bool


class ChaosPlan(NamedTuple):
    """The actions, each list ordered by time."""

    sends: Sequence[PlannedSend]
    faults: Sequence[PlannedFault]
    visits: Sequence[Visit] = ()


def plan(options: Options) -> ChaosPlan:
    """The plan for these options. The messages do not depend on the selected faults of processes."""
    return ChaosPlan(
        sorted(_sends(options)), list(_faults(options)), sorted(_visits(options), key=lambda v: v.at)
    )


def _random(options: Options, purpose: str) -> random.Random:
    return random.Random(f"legato chaos {options.seed} {purpose}")  # noqa: S311 - repeatable on purpose


def _sends(options: Options) -> Iterator[PlannedSend]:
    for user in range(options.users):
        dice, tools = _random(options, f"user {user}"), _random(options, f"tools {user}")
        at = dice.uniform(0, SEND_EVERY[1])
        while at < options.seconds:
            script = _script(dice, "provider" in options.faults)
            if "tools" in options.faults and tools.random() < WITH_TOOLS:
                script = _tool_script(tools)
            cancels, after = dice.random() < 0.2, dice.choice((0.0, dice.uniform(0, 6)))
            cancel = after if cancels and "cancel" in options.faults else None
            decides = round(tools.uniform(0, 4), 2)
            yield PlannedSend(round(at, 2), user, dice.randrange(options.nodes), script, cancel, decides)
            at += dice.uniform(*SEND_EVERY)


def _visits(options: Options) -> Iterator[Visit]:
    """The last one of each lasts to the end, or does not."""
    for guest in range(GUESTS):
        dice = _random(options, f"guest {guest}")
        at = dice.uniform(0, options.seconds / 4)
        while at < options.seconds:
            seconds = dice.uniform(*STAYS)
            stays = at + seconds >= options.seconds and dice.random() < 0.5
            node = dice.randrange(options.nodes)
            stay = None if stays else round(seconds, 2)
            yield Visit(round(at, 2), guest, node, stay, dice.random() < 0.5)
            at += seconds + dice.uniform(*dice.choice(AWAY))


def _script(dice: random.Random, faults: bool) -> ReplyScript:
    tokens = dice.choice((dice.randint(1, 30), dice.randint(30, 150), dice.randint(150, 500)))
    rate = dice.choice((20, 40, 80))
    overlap = dice.choice((0, 0, 3, 20))
    fault, fail_at = dice.choice(tuple(FAULT_CODES)), dice.choice((0, *(dice.randrange(tokens),) * 3))
    always = dice.random() < 0.2 and fault != "hang"  # a hang at every attempt would take minutes
    if not faults or dice.random() > 0.3:
        return ReplyScript(tokens, rate, overlap=overlap)
    return ReplyScript(tokens, rate, fault, fail_at, always, overlap)


def _tool_script(dice: random.Random) -> ReplyScript:
    """One to three steps with calls, and text around them."""
    calls: list[PlannedCall] = []
    tokens = 0
    for _ in range(dice.randint(1, 3)):
        tokens += dice.choice((0, dice.randint(1, 20)))
        names = [dice.choice(("charge", "charge", "mail", "refund")) for _ in range(dice.randint(1, 3))]
        calls += [PlannedCall(name, tokens) for name in names]
        tokens += dice.randint(1, 20)  # the next step has text: calls of one step follow each other
    return ReplyScript(tokens, dice.choice((20, 40, 80)), calls=tuple(calls), approve=dice.random() < 0.7)


def _faults(options: Options) -> Iterator[PlannedFault]:
    """Shuffled decks of all kinds, one after the other, so that a short run has each of them too."""
    dice = _random(options, "faults")
    busy: dict[tuple[str, int], float] = {}
    at = min(FIRST, options.seconds / 4)
    deck: list[str] = []
    while at < options.seconds:
        if not deck:
            deck = [kind for kind in KINDS if kind in options.faults]
            dice.shuffle(deck)
        if not deck:
            return
        fault = _fault(dice, options, deck.pop(), round(at, 2))
        thing = (KINDS[fault.kind].target, fault.target)
        if busy.get(thing, 0.0) <= fault.at:  # else it is in the middle of another one
            busy[thing] = fault.at + fault.seconds + 1.0
            yield fault
        at += dice.uniform(*EVERY) / options.pace


def _fault(dice: random.Random, options: Options, name: str, at: float) -> PlannedFault:
    kind = KINDS[name]
    target = dice.randrange(options.targets(kind.target))
    return PlannedFault(at, name, target, round(dice.uniform(*kind.seconds), 2))


def listing(made: ChaosPlan) -> str:
    """The plan as text, one line per action."""
    lines = [(send.at, _send_text(send)) for send in made.sends]
    lines += [
        (fault.at, f"{fault.kind} {fault.target} for {fault.seconds:.2f} s: {KINDS[fault.kind].text}")
        for fault in made.faults
    ]
    lines += [(visit.at, _visit_text(visit)) for visit in made.visits]
    return "".join(f"{at:7.2f}  {text}\n" for at, text in sorted(lines))


def _visit_text(visit: Visit) -> str:
    how = "unsubscribes" if visit.unsubscribes else "disconnects"
    until = "stays" if visit.seconds is None else f"{how} after {visit.seconds:.2f} s"
    return f"guest {visit.guest} comes through node {visit.node}, {until}"


def _send_text(send: PlannedSend) -> str:
    cancel = "" if send.cancel is None else f", cancelled after {send.cancel:.2f} s"
    if send.needs_approval:
        cancel += f", {'approved' if send.script.approve else 'refused'} after {send.decides:.2f} s"
    return f"user {send.user} sends through node {send.node}: {send.script.line}{cancel}"
