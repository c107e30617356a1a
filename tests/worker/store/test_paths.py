"""The path through any tree of turns is the right one, however it is read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.jobs import Turn
from legato.worker.limits import PATH_MAX_READS
from legato.worker.replies.reply import Decision
from legato.worker.store import database as databases
from legato.worker.store import reading
from legato.worker.store.conversations import HistoryLimits, Store, UnknownParentError
from legato.worker.store.paths import HISTORY_STATES, StoredTurn, TurnName, Turns, exchanges
from legato.worker.store.tables import messages
from tests.worker.store.test_store import rows
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hypothesis.strategies import DrawFn

STATES = ("complete", "failed", "cancelled")


class Tree(NamedTuple):
    """Stored turns in order, and the turn that each one follows."""

    turns: list[StoredTurn]
    before: dict[TurnName, TurnName | None]

    def path(self, name: TurnName | None) -> list[TurnName]:
        found = []
        while name is not None:
            found.append(name)
            name = self.before[name]
        return found

    def reader(self, most: int, asked: list[TurnName | int | None] | None = None) -> Turns:
        """Reads ``most`` turns at once. ``asked`` gets what is read for."""

        def read(start: TurnName | int | None) -> Sequence[StoredTurn]:
            if asked is not None:
                asked.append(start)
            end = len(self.turns)
            if isinstance(start, TurnName):
                end = next((turn.position + 1 for turn in self.turns if turn.name == start), 0)
            elif start is not None:
                end = start
            return self.turns[max(0, end - most) : end][::-1]

        return Turns(read)


@st.composite
def trees(draw: DrawFn) -> Tree:
    """Further messages, edits, answers once more, and messages of a worker that knew no branches."""
    turns: list[StoredTurn] = []
    before: dict[TurnName, TurnName | None] = {}

    def store(message_id: str, role: str, parent: TurnName | None, status: str, *, known: bool) -> None:
        before[TurnName(message_id, role)] = parent
        parent_id = (parent.message_id if parent else "") if known else None
        turns.append(StoredTurn(len(turns), message_id, role, parent_id, status, draw(st.booleans())))

    for number in range(draw(st.integers(0, 12))):
        message_id, status = f"m{number}", draw(st.sampled_from(STATES))
        users = [turn.name for turn in turns if turn.role == "user"]
        replies = [turn.name for turn in turns if turn.role == "assistant"]
        what = draw(st.sampled_from(["further", "old", "anywhere", "again"]))
        if what == "again" and users:
            store(message_id, "assistant", draw(st.sampled_from(users)), status, known=True)
            continue
        parent = turns[-1].name if turns else None
        if what == "anywhere":
            parent = draw(st.sampled_from([None, *replies]))
        store(message_id, "user", parent, "complete", known=what != "old")
        store(message_id, "assistant", TurnName(message_id, "user"), status, known=what != "old")
    return Tree(turns, before)


@given(trees(), st.integers(1, 9), st.data())
def test_the_path_from_any_turn_is_that_of_the_tree(tree: Tree, most: int, data: st.DataObject) -> None:
    turns = tree.reader(most)
    start = data.draw(st.sampled_from([None, *(turn.name for turn in tree.turns)]))
    first = turns.last() if start is None else turns.find(start)
    if start is None and tree.turns:
        start = tree.turns[-1].name
    assert [turn.name for turn in turns.path(first)] == tree.path(start)


@given(trees())
def test_exchanges_are_those_on_the_path_that_were_answered(tree: Tree) -> None:
    turns = tree.reader(5)
    path = list(turns.path(turns.last()))
    found = list(exchanges(path))
    assert [turn for exchange in found for turn in (exchange.reply, exchange.user)] == [
        turn
        for reply, user in zip(path[::2], path[1::2], strict=True)
        if reply.said and reply.status in HISTORY_STATES
        for turn in (reply, user)
    ]


def chain(length: int) -> Tree:
    turns, before = [], {}
    for number in range(length):
        role = ("user", "assistant")[number % 2]
        parent = turns[-1].name if turns else None
        turn = StoredTurn(
            number, f"m{number // 2}", role, parent.message_id if parent else "", "complete", said=True
        )
        turns.append(turn)
        before[turn.name] = parent
    return Tree(turns, before)


def test_a_chain_is_read_at_once() -> None:
    asked: list[TurnName | int | None] = []
    turns = chain(20).reader(20, asked)
    assert len(list(turns.path(turns.last()))) == 20
    assert asked == [None]


def test_a_path_that_takes_too_many_reads_ends_early() -> None:
    asked: list[TurnName | int | None] = []
    turns = chain(2 * PATH_MAX_READS).reader(1, asked)
    assert len(list(turns.path(turns.last()))) == len(asked) == PATH_MAX_READS


@pytest.mark.parametrize("parent", ["m0", "m1", "m9"])
def test_turns_that_follow_a_later_one_or_none_end_the_path(parent: str) -> None:
    """No worker stores such; a hand may. Reading them must end."""
    broken = StoredTurn(0, "m0", "user", parent, "complete", said=True)
    rest = chain(4).turns[1:]
    turns = Tree([broken, *rest], {}).reader(9)
    assert [turn.position for turn in turns.path(turns.last())] == [3, 2, 1, 0]


# In the database.


async def say(store: Store, message_id: str, state: Any = "complete", **fields: Any) -> None:
    message = "" if fields.get("regenerate") else f"ask {message_id}"
    job = make_job(message, message_id, conversation_id="c1", **fields)
    await store.save(job, f"answer {message_id}", Decision(state=state))


async def told(store: Store, **fields: Any) -> tuple[Turn, ...]:
    job = make_job("and?", "next", conversation_id="c1", **fields)
    return (await store.with_history(job)).history


def exchange(asked: str, answered: str) -> tuple[Turn, Turn]:
    return Turn("user", f"ask {asked}"), Turn("assistant", f"answer {answered}")


@pytest.fixture
async def grown(any_tables: str) -> AsyncIterator[Store]:
    """m1 - m2 - m3; m2 edited as m4, whose reply is followed by m5; m2 answered once more as m6."""
    store = Store(any_tables)
    await store.prepare()
    for number in "123":
        await say(store, f"m{number}")
    await say(store, "m4", parent_id="m1")
    await say(store, "m5", parent_id="m4")
    await say(store, "m6", parent_id="m2", regenerate=True)
    yield store
    await store.aclose()


async def test_branches_are_stored_as_a_tree(grown: Store, any_tables: str) -> None:
    found = [(row["message_id"], row["role"], row["parent_id"]) for row in await rows(any_tables)]
    parents = {"m1": "", "m2": "m1", "m3": "m2", "m4": "m1", "m5": "m4"}
    expected = [
        turn
        for name, parent in parents.items()
        for turn in ((name, "user", parent), (name, "assistant", name))
    ]
    assert found == [*expected, ("m6", "assistant", "m2")]


async def test_the_model_is_told_the_path_to_the_parent(grown: Store) -> None:
    one, two, three = exchange("m1", "m1"), exchange("m2", "m2"), exchange("m3", "m3")
    assert await told(grown, parent_id="m3") == (*one, *two, *three)
    assert await told(grown, parent_id="m5") == (*one, *exchange("m4", "m4"), *exchange("m5", "m5"))
    assert await told(grown, parent_id="m1") == one
    assert await told(grown, parent_id="") == ()
    again = (*one, *exchange("m2", "m6"))
    assert await told(grown, parent_id="m6") == again
    assert await told(grown) == again  # the reply that was stored last


async def test_a_message_is_answered_once_more_with_its_text_and_what_came_before(grown: Store) -> None:
    job = make_job("", "m7", conversation_id="c1", parent_id="m5", regenerate=True)
    asked = await grown.with_history(job)
    assert asked.message == "ask m5"
    assert asked.history == (*exchange("m1", "m1"), *exchange("m4", "m4"))


@pytest.mark.parametrize(
    "fields",
    [
        {"parent_id": "m9"},
        {"parent_id": "other"},
        {"parent_id": "foreign"},
        {"parent_id": "m6", "message": "", "regenerate": True},  # it has no user's turn of its own
        {"parent_id": "other", "message": "", "regenerate": True},
        {"parent_id": "foreign", "message": "", "regenerate": True},
    ],
)
async def test_no_other_conversation_is_told(grown: Store, any_tables: str, fields: dict[str, Any]) -> None:
    """Nor do turns follow one of another conversation, also where nobody looked before they were stored."""
    await grown.save(make_job("secret", "other", conversation_id="c2"), "x", Decision())
    await grown.save(make_job("secret", "foreign", conversation_id="c3", user_id="ann"), "x", Decision())
    job = make_job(**{"message": "and?", "message_id": "m8", "conversation_id": "c1", **fields})
    with pytest.raises(UnknownParentError):
        await grown.with_history(job)
    before = await rows(any_tables)
    await grown.save(job, "", Decision(state="cancelled"))
    new = (await rows(any_tables))[len(before) :]
    assert [row["role"] for row in new] == ["user", "assistant"][-len(new) :]
    assert new[0]["parent_id"] == ""
    assert {row["conversation_id"] for row in new}.isdisjoint(row["conversation_id"] for row in before)


async def test_a_first_message_has_no_parent_to_follow(any_tables: str) -> None:
    store = Store(any_tables)
    await store.prepare()
    with pytest.raises(UnknownParentError):
        await told(store, parent_id="m1")
    await say(store, "m1", parent_id="m0")
    assert await told(store) == ()
    await store.aclose()


async def test_turns_of_a_worker_that_knew_no_branches_follow_the_one_before(
    grown: Store, any_tables: str
) -> None:
    """After m6, such a worker stores m7; a newer one goes on."""
    await say(grown, "m7")
    engine = databases.connect(any_tables)
    async with engine.begin() as connection:
        old = messages.c.message_id.in_(["m1", "m2", "m3", "m7"])
        await connection.execute(messages.update().where(old).values(parent_id=None))
    await engine.dispose()
    again = (*exchange("m1", "m1"), *exchange("m2", "m6"), *exchange("m7", "m7"))
    assert await told(grown) == again
    assert await told(grown, parent_id="m3") == (
        *exchange("m1", "m1"),
        *exchange("m2", "m2"),
        *exchange("m3", "m3"),
    )
    await say(grown, "m8")
    assert (await rows(any_tables))[-2]["parent_id"] == "m7"


async def test_random_branches_are_told_by_whole_turns_within_the_limits(
    any_tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a few turns at once, so that paths cross many reads."""
    monkeypatch.setattr(reading, "PATH_TURNS_PER_READ", 4)
    dice = random.Random(7)
    store = Store(any_tables, limits=HistoryLimits(turns=10, characters=10_000))
    short = Store(any_tables, limits=HistoryLimits(turns=1000, characters=70))
    await store.prepare()
    paths: dict[str, list[Turn]] = {"": []}
    for number in range(30):
        name, parent = f"m{number}", dice.choice(list(paths)[-3:])
        state = dice.choice(["complete", "cancelled", "failed"])
        await say(store, name, state, parent_id=parent)
        paths[name] = paths[parent] + ([] if state == "failed" else [*exchange(name, name)])
    for parent, path in paths.items():
        assert await told(store, parent_id=parent) == tuple(path[-10:])
        fitting = next(
            path[start:]
            for start in range(0, len(path) + 2, 2)
            if sum(len(turn.content) for turn in path[start:]) <= 70
        )
        assert await told(short, parent_id=parent) == tuple(fitting)
    assert max(map(len, paths.values())) > 10
    await store.aclose()
    await short.aclose()
