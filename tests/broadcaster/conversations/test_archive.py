"""Stored conversations are read page by page, and by their user alone, in every kind of database."""

from __future__ import annotations

import asyncio
import logging
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.conversations import archive as module
from legato.broadcaster.conversations import cursors, tables
from legato.broadcaster.conversations import database as databases
from legato.broadcaster.conversations.cursors import ConversationPlace, TurnPosition
from legato.broadcaster.conversations.database import ConversationDatabase
from legato.broadcaster.conversations.opening import open_conversations
from legato.broadcaster.conversations.records import DatabaseDownError
from legato.protocol.jobs import InvalidRequest
from legato.protocol.settings import SettingsError
from legato.protocol.stream import Usage
from legato.worker.replies.reply import Decision
from legato.worker.store import database as worker_database
from legato.worker.store import tables as worker_tables
from legato.worker.store.conversations import ConversationDeniedError
from tests.waiting import WAIT
from tests.worker.store.test_store import rows
from tests.worker.support import make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from legato.broadcaster.conversations.archive import Conversations
    from legato.broadcaster.conversations.records import TurnRecord
    from legato.worker.store.conversations import Store

DONE = Decision("end_turn", Usage(1, 2, 3, 4), "claude-x")
PASSWORD = "hush-" + "hush"


@pytest.fixture
async def archive(any_tables: str, store: Store) -> AsyncIterator[Conversations]:
    async with open_conversations(any_tables) as opened:
        assert opened is not None
        yield opened


async def say(store: Store, message_id: str, conversation: str = "c1", **fields: Any) -> None:
    message = "" if fields.get("regenerate") else f"ask {message_id}"
    job = make_job(message, message_id, conversation_id=conversation, **fields)
    await store.save(job, f"answer {message_id}", DONE)


async def change(url: str, statement: sa.Executable) -> None:
    engine = worker_database.connect(url)
    async with engine.begin() as connection:
        await connection.execute(statement)
    await engine.dispose()


async def all_pages(archive: Conversations, user: Any, limit: int) -> list[list[str]]:
    pages, place = [], None
    while True:
        page = await archive.page(user, limit, place)
        pages.append([found.id for found in page.conversations])
        if page.next is None:
            return pages
        place = cursors.conversation_place(page.next)


async def turns(archive: Conversations, limit: int = 100, name: str = "c1") -> list[list[TurnRecord]]:
    pages, place = [], None
    while True:
        page = await archive.read(7, name, limit, place)
        assert page is not None
        pages.append(page.turns)
        if page.next is None:
            return pages
        place = cursors.turn_position(page.next)


# Lists.


async def test_conversations_are_listed_by_their_last_use(store: Store, archive: Conversations) -> None:
    for number in range(3):
        await say(store, f"m{number}", f"c{number}")
    await store.save(make_job("in a session", "m8", session_id="s"), "x", DONE)
    await say(store, "m9", "hers", user_id="ann")
    page = await archive.page(7, 10, None)
    assert sorted(found.id for found in page.conversations) == ["c0", "c1", "c2"]
    assert page.next is None
    (hers,) = (await archive.page("ann", 10, None)).conversations
    assert (hers.id, hers.title) == ("hers", "ask m9")
    assert datetime.now(UTC) - datetime.fromisoformat(hers.updated_at) < timedelta(minutes=5)
    assert (await archive.page("nobody", 10, None)).conversations == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_have_every_conversation_once_in_order(
    store: Store, archive: Conversations, any_tables: str, limit: int
) -> None:
    """Three each have one time, as they may in a database that counts whole seconds."""
    for number in range(7):
        await say(store, f"m{number}", f"c{number}")
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number // 3)
        table = worker_tables.conversations
        of_it = table.c.public_id == f"c{number}"
        await change(any_tables, table.update().where(of_it).values(updated_at=at))
    pages = await all_pages(archive, 7, limit)
    assert [name for page in pages for name in page] == ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]
    assert {len(page) for page in pages[:-1]} <= {limit}


async def test_search_finds_all_words_in_title_or_texts(store: Store, archive: Conversations) -> None:
    texts = {"c1": "Wie wird das Wetter in Ålesund?", "c2": "100 % sure_thing", "c3": "Weather\nin Oslo"}
    for name, text in texts.items():
        await store.save(make_job(text, f"m-{name}", conversation_id=name), f"Reply to {name}", DONE)
    await archive.rename(7, "c3", "Straße /1")
    await say(store, "hers", "c9", user_id="ann")

    async def found(*words: str) -> list[str]:
        return [one.id for one in (await archive.page(7, 10, None, words)).conversations]

    assert await found("WETTER", "ålesund") == ["c1"]
    assert await found("oslo", "straße", "reply") == ["c3"]
    assert await found("%") == await found("E_T") == ["c2"]
    assert await found("/1") == ["c3"]
    assert await found("oslo", "ålesund") == await found("hers") == []
    one = await archive.page(7, 1, None, ["reply"])
    assert one.next is not None
    rest = await archive.page(7, 5, cursors.conversation_place(one.next), ["reply"])
    assert sorted(each.id for page in (one, rest) for each in page.conversations) == ["c1", "c2", "c3"]


# Turns.


async def test_turns_say_what_they_follow_and_how_they_were_made(
    store: Store, archive: Conversations
) -> None:
    await say(store, "m1")
    await say(store, "m2", parent_id="m1", regenerate=True)
    page = await archive.read(7, "c1", 10, None)
    assert page is not None
    assert (page.id, page.title, page.next) == ("c1", "ask m1", None)
    again, reply, user = page.turns
    assert (user.message_id, user.role, user.parent_id, user.content) == ("m1", "user", "", "ask m1")
    assert (user.model, user.stop_reason, user.usage, user.status) == (None, None, None, "complete")
    assert user.created_at == "2023-11-14T22:13:20.000Z"
    assert (reply.message_id, reply.role, reply.parent_id) == ("m1", "assistant", "m1")
    assert (reply.model, reply.stop_reason, reply.usage) == ("claude-x", "end_turn", Usage(1, 2, 3, 4))
    assert (again.message_id, again.role, again.parent_id) == ("m2", "assistant", "m1")
    assert again.content == "answer m2"


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_turns_of_an_older_worker_follow_the_one_before(
    store: Store, archive: Conversations, any_tables: str, limit: int
) -> None:
    for number in range(3):
        await say(store, f"m{number}")
    await change(any_tables, worker_tables.messages.update().values(parent_id=None))
    found = [turn for page in await turns(archive, limit) for turn in page]
    assert [(turn.message_id, turn.parent_id) for turn in found] == [
        *(("m2", "m2"), ("m2", "m1"), ("m1", "m1"), ("m1", "m0"), ("m0", "m0"), ("m0", ""))
    ]


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7])
async def test_pages_have_every_turn_once_the_last_first(
    store: Store, archive: Conversations, limit: int
) -> None:
    for number in range(3):
        await say(store, f"m{number}")
    pages = await turns(archive, limit)
    names = [(turn.message_id, turn.role) for page in pages for turn in page]
    assert names == [(f"m{number}", role) for number in (2, 1, 0) for role in ("assistant", "user")]
    assert {len(page) for page in pages[:-1]} <= {limit}


async def test_page_of_long_turns_ends_early_but_never_empty(
    store: Store, archive: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        await say(store, f"m{number}")  # of 6 and 9 characters
    for most in (14, 5):
        monkeypatch.setattr(module, "TURNS_PAGE_CHARACTERS", most)
        assert [[turn.content for turn in page] for page in await turns(archive)] == [
            ["answer m1"],
            ["ask m1"],
            ["answer m0"],
            ["ask m0"],
        ]
    monkeypatch.setattr(module, "TURNS_PAGE_CHARACTERS", 15)
    assert [len(page) for page in await turns(archive)] == [2, 2]


async def test_conversation_without_turns_has_none(store: Store, archive: Conversations) -> None:
    await store.with_history(make_job(conversation_id="c1"))
    page = await archive.read(7, "c1", 10, None)
    assert page is not None
    assert (page.turns, page.next, page.title) == ([], None, None)


# Whose they are.


async def test_conversation_exists_for_its_user_alone(store: Store, archive: Conversations) -> None:
    await say(store, "m1")
    await store.save(make_job("in a session", "m2", session_id="s"), "x", DONE)
    for user, name in (("ann", "c1"), ("", "c1"), (7, "C1"), (7, "s"), (7, "m2"), (7, "c2")):
        assert await archive.read(user, name, 10, None) is None
        assert await archive.rename(user, name, "Mine") is None
        assert await archive.delete(user, name) is None
    page = await archive.read(7, "c1", 10, None)
    assert page is not None
    assert (page.title, len(page.turns)) == ("ask m1", 2)


# Changes.


async def test_conversation_gets_another_title(store: Store, archive: Conversations) -> None:
    await say(store, "m1")
    before = (await archive.page(7, 1, None)).conversations[0]
    for title in ("Oslo", "Oslo"):
        renamed = await archive.rename(7, "c1", title)
        assert renamed is not None
        assert (renamed.id, renamed.title, renamed.updated_at) == ("c1", "Oslo", before.updated_at)
    await say(store, "m2")
    assert [found.title for found in (await archive.page(7, 1, None)).conversations] == ["Oslo"]


async def test_deleted_conversation_leaves_no_text_and_comes_back_never(
    store: Store, archive: Conversations, any_tables: str
) -> None:
    await say(store, "m1")
    await say(store, "m2", "c2")
    assert await archive.delete(7, "c1") is not None
    assert [row["message_id"] for row in await rows(any_tables)] == ["m2", "m2"]
    gone, _ = await rows(any_tables, worker_tables.conversations)
    assert (gone["public_id"], gone["user_id"], gone["title"]) == ("c1", "", None)
    assert await archive.read(7, "c1", 10, None) is None
    assert await archive.delete(7, "c1") is None
    assert [found.id for found in (await archive.page(7, 10, None)).conversations] == ["c2"]
    await say(store, "late")
    with pytest.raises(ConversationDeniedError):
        await store.with_history(make_job(conversation_id="c1"))
    assert [row["message_id"] for row in await rows(any_tables)] == ["m2", "m2"]


async def test_turns_that_are_stored_meanwhile_do_not_survive(
    store: Store, archive: Conversations, any_tables: str
) -> None:
    await say(store, "m0")
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 20):
            tasks.create_task(say(store, f"m{number}"))
        tasks.create_task(archive.delete(7, "c1"))
    assert await rows(any_tables) == []


# The database.


def test_description_of_the_tables_agrees_with_the_workers() -> None:
    for name in ("conversations", "messages"):
        mine, theirs = getattr(tables, name), getattr(worker_tables, name)
        assert mine.name == theirs.name
        for column in mine.c:
            there = theirs.c[column.name]
            assert column.type.python_type is there.type.python_type, column
            assert getattr(column.type, "timezone", None) == getattr(there.type, "timezone", None)
    assert module.NOBODY == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgres", "expected sqlite:///FILE"),
        (f"oracle://x:{PASSWORD}@h/y", "expected sqlite:///FILE"),
        (f"postgresql://x:{PASSWORD}@h:port/y", "expected sqlite:///FILE"),
        (f"postgresql+nothing://x:{PASSWORD}@h/y", "expected sqlite:///FILE"),
        (f"postgresql+pg8000://x:{PASSWORD}@h/y", "the driver pg8000 is not installed"),
    ],
)
async def test_url_that_cannot_be_used_is_said_without_it(url: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=rf"^chat\.database_url: {reason}") as caught:
        async with open_conversations(url):
            pass
    assert PASSWORD not in str(caught.value)


async def test_file_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    async with open_conversations(f"sqlite:///{tmp_path}/none.db") as archive:
        assert archive is not None
        with pytest.raises(DatabaseDownError):
            await archive.page(7, 1, None)
    assert not (tmp_path / "none.db").exists()


async def test_reason_is_for_the_log(any_database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Here: no worker has made the tables yet. A later request succeeds."""
    if any_database.startswith("sqlite"):
        await change(any_database, sa.text("CREATE TABLE other (x INTEGER)"))
    async with open_conversations(any_database) as archive:
        assert archive is not None
        with pytest.raises(DatabaseDownError) as caught:
            await archive.page(7, 1, None)
        assert (str(caught.value), caught.value.__cause__) == ("", None)
        (line,) = [record.getMessage() for record in caplog.records if record.name == "legato.chat"]
        assert line.startswith("the database of conversations cannot be used: ")
        assert "conversations" in line.partition(": ")[2]
        await change(any_database, sa.schema.CreateTable(worker_tables.conversations))
        assert (await archive.page(7, 1, None)).conversations == []


async def test_server_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests beyond the number of connections do not wait longer."""
    monkeypatch.setattr(databases, "CONVERSATIONS_SECONDS", 0.2)
    caplog.set_level(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with open_conversations(f"postgresql://x:{PASSWORD}@127.0.0.1:{port}/y") as archive:
            assert archive is not None
            asked = [archive.page(7, 1, None) for _ in range(databases.CONVERSATIONS_CONNECTIONS + 3)]
            async with asyncio.timeout(WAIT):
                answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseDownError}
    assert "no answer within 0.2 s" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.usefixtures("store")
async def test_only_a_few_connections_are_used_at_once(any_tables: str) -> None:
    running = most = 0
    opened = ConversationDatabase(any_tables)
    begin = opened._run

    async def note(work: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await begin(work)
        finally:
            running -= 1

    opened._run = note  # type: ignore[method-assign]
    await asyncio.gather(*(opened.run(lambda _: None) for _ in range(20)))
    assert most == databases.CONVERSATIONS_CONNECTIONS
    await opened.close()


# Cursors.


@given(
    st.datetimes(timezones=st.just(UTC)).map(lambda time: ConversationPlace(time, time.second)),
    st.integers(0, 2**31 - 1),
)
def test_cursors_lead_back(place: ConversationPlace, position: int) -> None:
    assert cursors.conversation_place(cursors.encode(place)) == place
    assert cursors.turn_position(cursors.encode(TurnPosition(position))) == TurnPosition(position)
    assert len(cursors.encode(place)) < cursors.LONGEST


@given(
    st.text(max_size=300) | st.binary(max_size=90).map(lambda data: cursors.urlsafe_b64encode(data).decode())
)
def test_anything_else_is_no_cursor(text: str) -> None:
    for read in (cursors.conversation_place, cursors.turn_position):
        with pytest.raises(InvalidRequest) as caught:
            read(text)
        assert caught.value.field == "before"


@pytest.mark.parametrize(
    "bad",
    [
        b"[-1]",
        b"[2147483648]",
        b'["2026-01-01T00:00:00",1]',
        b'["2026-01-01T00:00:00Z",-1]',
        b'["2026-01-01T00:00:00Z",9223372036854775808]',
    ],
)
def test_numbers_that_databases_choke_on_are_no_cursors(bad: bytes) -> None:
    text = cursors.urlsafe_b64encode(bad).decode()
    for read in (cursors.conversation_place, cursors.turn_position):
        with pytest.raises(InvalidRequest):
            read(text)
