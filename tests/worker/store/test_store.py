"""Turns are kept once and in order, wherever the database is; a conversation is told to its user alone."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from legato.protocol.conversations import NOBODY
from legato.protocol.jobs import Turn
from legato.protocol.stream import Usage
from legato.worker.replies.reply import Decision
from legato.worker.store import conversations as module
from legato.worker.store import database as databases
from legato.worker.store.conversations import (
    ConversationDeniedError,
    DatabaseRefusedError,
    HistoryLimits,
    Store,
)
from legato.worker.store.tables import conversations, messages
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from legato.protocol.jobs import Job

DONE = Decision("end_turn", Usage(1, 2, 3, 4), "claude-x")
CANCELLED = Decision(state="cancelled")
FAILED = Decision(state="failed", code="overloaded")


async def rows(url: str, table: sa.Table = messages) -> list[dict[str, Any]]:
    engine = databases.connect(url)
    async with engine.connect() as connection:
        found = [dict(row._mapping) for row in await connection.execute(table.select().order_by(table.c.id))]
    await engine.dispose()
    return found


@pytest.fixture
async def kept(any_tables: str) -> AsyncIterator[Store]:
    """A store in every kind of database."""
    opened = Store(any_tables)
    await opened.prepare()
    yield opened
    await opened.aclose()


async def say(store: Store, message: str, answer: str, decision: Decision = DONE, **fields: Any) -> None:
    """One exchange; its message is its id too."""
    await store.save(make_job(message, message, **fields), answer, decision)


async def told(store: Store, **fields: Any) -> list[str]:
    """What the model is told before a further message of conversation c1."""
    job = make_job("and?", "next", **{"conversation_id": "c1", **fields})
    return [f"{turn.role}: {turn.content}" for turn in (await store.with_history(job)).history]


@pytest.fixture
def cuts(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Reads what the log says about histories that were cut."""
    caplog.set_level("INFO", "legato.worker")
    return lambda: [message for message in caplog.messages if "history" in message]


# Keeping.


async def test_both_turns_are_kept(kept: Store, any_tables: str) -> None:
    await kept.save(make_job("Hi", session_id="s1"), "Hello!", DONE)
    user, assistant = await rows(any_tables)
    common = {"message_id": "m1", "user_id": "7", "session_id": "s1", "status": "complete"}
    assert common.items() <= user.items()
    assert common.items() <= assistant.items()
    assert (user["role"], user["content"], user["model"]) == ("user", "Hi", None)
    assert (assistant["role"], assistant["content"], assistant["model"]) == (
        "assistant",
        "Hello!",
        "claude-x",
    )
    assert assistant["stop_reason"] == "end_turn"
    assert [assistant[f"{name}_tokens"] for name in ("input", "output", "cache_read", "cache_write")] == [
        *(1, 2, 3, 4)
    ]
    assert str(user["created_at"]).startswith("2023-11-14 22:13:20")
    assert user["created_at"] < assistant["created_at"]


async def test_second_write_of_a_turn_is_ignored(kept: Store, any_tables: str) -> None:
    await kept.save(make_job(), "first", DONE)
    before = await rows(any_tables)
    await kept.save(make_job(), "second", DONE)
    assert await rows(any_tables) == before
    assert len(before) == 2


async def test_message_is_its_own_session_where_there_is_none(kept: Store, any_tables: str) -> None:
    await kept.save(make_job(), "x", DONE)
    assert {row["session_id"] for row in await rows(any_tables)} == {"m1"}
    (conversation,) = await rows(any_tables, conversations)
    assert (conversation["session_id"], conversation["public_id"]) == ("m1", None)


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_turn_that_did_not_end_well_says_so(store: Store, database: str, state: Any) -> None:
    await store.save(make_job(), "par", Decision(state=state))
    assert [row["status"] for row in await rows(database)] == ["complete", state]


async def test_texts_that_databases_choke_on(kept: Store, any_tables: str) -> None:
    await kept.save(make_job("a\0b", queued_at=2**53), "😀" * 100_000, DONE)
    user, assistant = await rows(any_tables)
    assert user["content"] == "ab"
    assert str(user["created_at"]).startswith("9999-12-31")
    assert assistant["content"] == "😀" * 100_000


async def test_time_beyond_any_calendar_is_its_end(store: Store, database: str) -> None:
    await store.save(make_job(queued_at=10**400), "x", DONE)
    assert str((await rows(database))[0]["created_at"]).startswith("9999-12-31")


async def test_ids_that_differ_in_case_are_different(kept: Store, any_tables: str) -> None:
    """MySQL's own collations would take the second for the first one again, and Ann for ann."""
    await say(kept, "m", "one", user_id="ann", conversation_id="c1")
    await say(kept, "M", "two", user_id="Ann", conversation_id="C1")
    assert [row["content"] for row in await rows(any_tables)] == ["m", "one", "M", "two"]
    assert await told(kept, user_id="ann") == ["user: m", "assistant: one"]
    with pytest.raises(ConversationDeniedError):
        await told(kept, user_id="Ann")


async def test_row_that_the_database_does_not_take_is_refused_without_telling_it(
    store: Store, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "turns.db") as connection:
        connection.execute(  # what a strict database does with too long an id, which SQLite takes
            "CREATE TRIGGER strict BEFORE INSERT ON messages WHEN length(new.user_id) > 100"
            " BEGIN SELECT raise(abort, 'value too long'); END"
        )
    connection.close()
    text = "gehe" + "im"  # in two, for a traceback shows these lines too
    with pytest.raises(DatabaseRefusedError, match=r"^value too long$") as caught:
        await store.save(make_job(user_id="x" * 128), text, DONE)
    assert text not in "".join(traceback.format_exception(caught.value))


async def test_server_refuses_what_does_not_fit_without_telling_it(kept: Store, any_tables: str) -> None:
    """Nothing is cut off silently."""
    text = "gehe" + "im"
    decision = Decision(text * 100, DONE.usage)
    if any_tables.startswith("sqlite"):
        await kept.save(make_job(), "x", decision)
        return
    with pytest.raises(DatabaseRefusedError) as caught:
        await kept.save(make_job(), "x", decision)
    assert text not in "".join(traceback.format_exception(caught.value))
    assert await rows(any_tables) == []


# Places in a conversation.


async def test_turns_of_a_conversation_are_counted(kept: Store, any_tables: str) -> None:
    for number in range(3):
        await say(kept, f"m{number}", "x", conversation_id="c1")
        await say(kept, f"s{number}", "x", session_id="s")
    await say(kept, "m0", "again", conversation_id="c1")
    public, session = await rows(any_tables, conversations)
    assert (public["public_id"], public["session_id"], public["user_id"]) == ("c1", None, "7")
    assert (session["public_id"], session["session_id"], session["user_id"]) == (None, "s", "7")
    assert public["created_at"] <= public["updated_at"]
    for conversation, letter in ((public, "m"), (session, "s")):
        of_it = [row for row in await rows(any_tables) if row["conversation_id"] == conversation["id"]]
        assert [(row["position"], row["message_id"], row["role"]) for row in of_it] == [
            (place, f"{letter}{place // 2}", ("user", "assistant")[place % 2]) for place in range(6)
        ]


async def test_messages_that_end_at_once_are_kept_side_by_side(kept: Store, any_tables: str) -> None:
    """Also by several processes: here by several stores. Each was a conversation's first once."""
    stores = [kept, Store(any_tables), Store(any_tables)]
    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(say(stores[number % 3], f"m{number}", "x", conversation_id=f"c{number % 2}"))
    for store in stores[1:]:
        await store.aclose()
    assert len(await rows(any_tables, conversations)) == 2
    turns = sorted(await rows(any_tables), key=lambda row: (row["conversation_id"], row["position"]))
    assert [row["position"] for row in turns] == [*range(30), *range(30)]
    for user, assistant in zip(turns[::2], turns[1::2], strict=True):
        assert user["message_id"] == assistant["message_id"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")


async def test_conversation_that_is_removed_takes_its_turns_along(kept: Store, any_tables: str) -> None:
    await say(kept, "m1", "x", conversation_id="c1")
    await say(kept, "m2", "x")
    engine = databases.connect(any_tables)
    async with engine.begin() as connection:
        await connection.execute(conversations.delete().where(conversations.c.public_id == "c1"))
    await engine.dispose()
    assert [row["message_id"] for row in await rows(any_tables)] == ["m2", "m2"]
    assert await told(kept) == []


# Telling.


async def test_without_a_conversation_the_history_is_the_jobs(store: Store) -> None:
    history = (Turn("user", "a"), Turn("assistant", "b"))
    job = make_job(history=history, session_id="s")
    assert await store.with_history(job) == job


async def test_history_is_what_was_answered_in_order(kept: Store) -> None:
    await say(kept, "one", "1", conversation_id="c1")
    await say(kept, "two", "2 and", CANCELLED, conversation_id="c1")
    await say(kept, "three", "3 and", FAILED, conversation_id="c1")
    await say(kept, "four", "", CANCELLED, conversation_id="c1")
    await say(kept, "five", "\n", CANCELLED, conversation_id="c1")
    await kept.save(make_job("\0", "nothing", conversation_id="c1"), "to nothing", DONE)
    await say(kept, "six", "6", conversation_id="c1", user_id="7")
    await say(kept, "seven", "7", conversation_id="c2")
    await say(kept, "eight", "8", session_id="c1")
    expected = ["user: one", "assistant: 1", "user: two", "assistant: 2 and", "user: six", "assistant: 6"]
    assert await told(kept) == expected


async def test_replies_without_text_take_no_room_in_the_history(any_tables: str) -> None:
    store = Store(any_tables, limits=HistoryLimits(turns=4))
    await store.prepare()
    await say(store, "one", "1", conversation_id="c1")
    for number in range(6):
        await say(store, f"m{number}", "" if number % 2 else "  ", CANCELLED, conversation_id="c1")
        await say(store, f"f{number}", "x", FAILED, conversation_id="c1")
    assert await told(store) == ["user: one", "assistant: 1"]
    await store.aclose()


async def test_taken_over_after_it_was_kept_a_message_is_not_told_itself(kept: Store) -> None:
    await say(kept, "one", "1", conversation_id="c1")
    await say(kept, "next", "cut", CANCELLED, conversation_id="c1")
    assert await told(kept) == ["user: one", "assistant: 1"]


async def test_only_the_newest_turns_are_told(any_tables: str, cuts: Callable[[], list[str]]) -> None:
    store = Store(any_tables, limits=HistoryLimits(turns=5))
    await store.prepare()
    for number in range(4):
        await say(store, f"m{number}", str(number), conversation_id="c1")
    assert await told(store) == ["user: m2", "assistant: 2", "user: m3", "assistant: 3"]
    assert cuts() == ["reply next: history cut to 4 turns, 6 characters"]
    assert (await store.with_history(make_job(conversation_id="c1"))).history_cut
    await store.aclose()


async def test_history_that_is_told_whole_is_not_called_cut(
    any_tables: str, cuts: Callable[[], list[str]]
) -> None:
    store = Store(any_tables, limits=HistoryLimits(turns=4, characters=6))
    await store.prepare()
    for number in range(2):
        await say(store, f"m{number}", str(number), conversation_id="c1")
    assert await told(store) == ["user: m0", "assistant: 0", "user: m1", "assistant: 1"]
    assert cuts() == []
    assert not (await store.with_history(make_job(conversation_id="c1"))).history_cut
    await store.aclose()


async def test_long_turns_are_told_to_the_last_character(kept: Store, cuts: Callable[[], list[str]]) -> None:
    page, answer = "é" * 20_000, "word " * 2_178
    for number in range(2):
        await kept.save(make_job(page, f"m{number}", conversation_id="c1"), answer, DONE)
    assert await told(kept) == [f"user: {page}", f"assistant: {answer}"] * 2
    assert cuts() == []


async def test_only_as_many_characters_are_told_as_fit(
    any_tables: str, cuts: Callable[[], list[str]]
) -> None:
    """An exchange goes as a whole, and those before it too."""
    store = Store(any_tables, limits=HistoryLimits(characters=20))
    await store.prepare()
    await say(store, "m0", "short", conversation_id="c1")
    await say(store, "m1", "é" * 11, conversation_id="c1")
    assert await told(store) == ["user: m0", "assistant: short", "user: m1", f"assistant: {'é' * 11}"]
    assert cuts() == []
    await say(store, "m2", "x", conversation_id="c1")
    assert await told(store) == ["user: m1", f"assistant: {'é' * 11}", "user: m2", "assistant: x"]
    await say(store, "m3", "long" * 1000, conversation_id="c1")
    assert await told(store) == []
    assert [line.partition("cut to ")[2] for line in cuts()] == [
        "4 turns, 16 characters",
        "0 turns, 0 characters",
    ]
    await store.aclose()


async def test_nothing_of_a_conversation_is_told_to_another_user(kept: Store, any_tables: str) -> None:
    await say(kept, "one", "1", conversation_id="c1")
    with pytest.raises(ConversationDeniedError):
        await told(kept, user_id="ann")
    await say(kept, "let me in", "", FAILED, conversation_id="c1", user_id="ann")
    assert await told(kept) == ["user: one", "assistant: 1"]
    with pytest.raises(ConversationDeniedError):
        await told(kept, user_id="ann")
    outside = await rows(any_tables, conversations)
    assert [(row["public_id"], row["session_id"], row["user_id"]) for row in outside] == [
        ("c1", None, "7"),
        (None, "let me in", "ann"),
    ]
    assert [row["position"] for row in await rows(any_tables)] == [0, 1, 0, 1]


async def test_conversation_is_the_users_who_is_first(kept: Store) -> None:
    """Before the model is asked: two users cannot both have been told that it is theirs."""
    users = [f"u{number}" for number in range(8)]
    answers = await asyncio.gather(*(told(kept, user_id=user) for user in users), return_exceptions=True)
    assert sorted(map(str, answers)) == [*[""] * 7, "[]"]
    (owner,) = [user for user, answer in zip(users, answers, strict=True) if answer == []]
    await say(kept, "mine", "yes", conversation_id="c1", user_id=owner)
    assert await told(kept, user_id=owner) == ["user: mine", "assistant: yes"]


# Titles.


async def titles(url: str) -> list[str | None]:
    return [row["title"] for row in await rows(url, conversations)]


async def test_conversation_is_called_by_its_first_words(kept: Store, any_tables: str) -> None:
    job = make_job("What is the\nweather in Oslo?", conversation_id="c1")
    made = await kept.save(job, "Cold.", FAILED)
    assert made is not None
    assert made.title == "What is the weather in Oslo?"
    assert await kept.save(job, "Cold.", FAILED) is None
    assert await kept.save(make_job("And Bergen?", "m2", conversation_id="c1"), "Wet.", DONE) is None
    assert await kept.save(make_job("Without one", "m3", session_id="s"), "x", DONE) is None
    assert await titles(any_tables) == ["What is the weather in Oslo?", None]


async def test_conversation_without_words_gets_no_title(store: Store, database: str) -> None:
    assert await store.save(make_job("\0", conversation_id="c1"), "x", DONE) is None
    assert await titles(database) == [None]


async def test_titles_can_be_off(database: str) -> None:
    store = Store(database, titles=False)
    await store.prepare()
    assert await store.save(make_job(conversation_id="c1"), "x", DONE) is None
    assert await titles(database) == [None]
    await store.aclose()


async def test_title_is_replaced_unless_it_was_changed_in_between(kept: Store, any_tables: str) -> None:
    job = make_job("Hi", conversation_id="c1")
    await kept.save(job, "x", DONE)
    assert not await kept.retitle(job, "Other", "Mine")
    assert not await kept.retitle(make_job("Hi", conversation_id="c1", user_id="ann"), "Hi", "Hers")
    assert await kept.retitle(job, "Hi", "Greetings")
    assert await titles(any_tables) == ["Greetings"]


# Removed conversations.


async def delete(url: str, public_id: str) -> None:
    """As the broadcaster deletes a conversation."""
    engine = databases.connect(url)
    async with engine.begin() as connection:
        found = conversations.c.public_id == public_id
        number = await connection.scalar(sa.select(conversations.c.id).where(found))
        await connection.execute(messages.delete().where(messages.c.conversation_id == number))
        gone = conversations.update().where(found).values(user_id=NOBODY, title=None)
        await connection.execute(gone)
    await engine.dispose()


async def test_late_reply_does_not_revive_a_conversation_that_was_deleted(
    kept: Store, any_tables: str
) -> None:
    await say(kept, "m1", "x", conversation_id="c1")
    await delete(any_tables, "c1")
    assert await kept.save(make_job("late", "m2", conversation_id="c1"), "secret", DONE) is None
    assert await rows(any_tables) == []
    for user in (7, "ann"):
        with pytest.raises(ConversationDeniedError):
            await told(kept, user_id=user)
    assert await titles(any_tables) == [None]


async def statements(store: Store, job: Job) -> list[str]:
    """The verbs of the statements with which a message is stored."""
    found: list[str] = []
    engine = store._transactions._engine  # type: ignore[attr-defined]

    def note(*arguments: Any) -> None:
        found.append(arguments[2].split()[0])

    of = getattr(engine, "sync_engine", engine)
    sa.event.listen(of, "before_cursor_execute", note)
    await store.save(job, "x", DONE)
    sa.event.remove(of, "before_cursor_execute", note)
    return [verb for verb in found if verb != "BEGIN"]


async def test_message_is_stored_with_four_statements(kept: Store) -> None:
    """They are most of what a reply costs the worker beyond its tokens."""
    four = ["SELECT", "SELECT", "INSERT", "UPDATE"]
    first = await statements(kept, make_job("a", "m1", conversation_id="c1"))
    assert first == ["SELECT", "INSERT", *four]
    assert await statements(kept, make_job("b", "m2", conversation_id="c1")) == four
    assert await statements(kept, make_job("c", "m3", conversation_id="c1", parent_id="m1")) == four
    again = make_job("", "m4", conversation_id="c1", parent_id="m1", regenerate=True)
    assert await statements(kept, again) == four


async def test_message_of_no_conversation_is_stored_with_two_statements_where_inserts_count(
    kept: Store, any_tables: str
) -> None:
    job, few = make_job("a", "m1"), 6 if "mysql" in any_tables else 2
    assert len(await statements(kept, job)) == few
    assert len(await statements(kept, job)) > 2, "it is stored already: nothing changes"
    assert len(await statements(kept, make_job("b", "m2"))) == few
    assert len(await rows(any_tables)) == 4


# Several processes.


def test_processes_that_start_at_once_on_one_new_database_all_succeed(any_database: str) -> None:
    code = f"""
import asyncio, sys
from legato.worker.replies.reply import Decision
from legato.worker.store.conversations import Store
from tests.worker.support import (make_job)
async def main():
    print("set", flush=True)
    sys.stdin.read()
    store = Store({any_database!r})
    await store.prepare()
    for number in range(20):
        job = make_job(message_id=sys.argv[1] + str(number), session_id="s")
        await store.save(job, "x", Decision("end_turn"))
    await store.aclose()
asyncio.run(main())
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "set\n"
    for process in started:  # all at once
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    for process in started:
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, "")
    turns = asyncio.run(rows(any_database))
    assert sorted(row["position"] for row in turns) == [*range(120)]


def test_every_dialect_has_its_insert() -> None:
    assert module._INSERT_ONCE.keys() == databases._OPTIONS.keys()
