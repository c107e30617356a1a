"""Conversations get titles beside their replies; a title is never worth a reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol import stream
from legato.protocol.jobs import Job, Turn
from legato.worker.limits import TITLE_MAX_CHARACTERS, TITLE_MAX_TOKENS, TITLES_AT_ONCE
from legato.worker.providers import base
from legato.worker.replies import titles as module
from legato.worker.replies.model import AttemptPolicy, Model
from legato.worker.replies.reply import Decision
from legato.worker.replies.runner import Control, Outcome, Runner
from legato.worker.replies.titles import TitleModel, Titles
from legato.worker.store.tables import conversations
from tests.waiting import WAIT, until
from tests.worker.replies.test_runner import Stage, spoken
from tests.worker.store.test_store import rows
from tests.worker.support import PATIENT, Ears, Puppet, Stubborn, make_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from redis.asyncio import Redis

    from legato.worker.store.conversations import Store

JOB = make_job("What is the weather?", conversation_id="c1")
FIRST = "What is the weather?"


@pytest.fixture
def stage(redis: Redis, store: Store, tmp_path: Path) -> Stage:
    return Stage(redis, store, tmp_path / "turns.db")


@pytest.fixture
async def runner(stage: Stage) -> AsyncIterator[Callable[..., Runner]]:
    """Makes runners whose conversations get titles: from ``names`` if there is one."""
    made: list[Runner] = []

    def make(provider: base.Provider, names: base.Provider | None = None) -> Runner:
        found = stage.runner(provider)
        model = None
        if names is not None:
            asked = Model(provider=names, policy=AttemptPolicy(PATIENT, 0), tries=1)
            model = TitleModel(asked, "cheap")
        object.__setattr__(found, "titles", Titles(stage.redis, stage.store, model))  # type: ignore[arg-type]
        made.append(found)
        return found

    yield make
    for one in made:
        await one.aclose()


async def answer(runner: Runner, job: Job = JOB) -> Outcome:
    async with asyncio.timeout(WAIT):
        return await runner.run(job, Control())


async def title(database: str) -> str | None:
    (row,) = await rows(database, conversations)
    found: str | None = row["title"]
    return found


def changed(ears: Ears) -> list[dict[str, Any]]:
    return [data for event, data in ears.heard if event == "conversation.changed"]


async def test_first_reply_gives_the_conversation_a_title_that_pages_hear_of(
    stage: Stage, runner: Callable[..., Runner], database: str
) -> None:
    async with Ears(stage.redis, JOB) as ears:
        assert await answer(runner(Puppet(*spoken("Cold.")))) is Outcome.DONE
        await ears.until("conversation.changed")
        assert [event for event, _ in ears.heard][-2:] == ["stream.completed", "conversation.changed"]
        second = make_job("And now?", "m2", conversation_id="c1")
        assert await answer(runner(Puppet(*spoken("Wet."))), second) is Outcome.DONE
        await runner(Puppet()).aclose()
        await ears.all()
    (data,) = changed(ears)
    assert (data["conversationId"], data["title"]) == ("c1", FIRST)
    (row,) = await rows(database, conversations)
    assert data["updatedAt"][:10] == str(row["updated_at"])[:10]
    assert data["updatedAt"].endswith("Z")


async def test_event_goes_to_the_user_wherever_the_reply_goes(
    stage: Stage, runner: Callable[..., Runner]
) -> None:
    elsewhere = make_job(FIRST, conversation_id="c1", reply_channel="private-team.7")
    async with Ears(stage.redis, JOB) as ears:
        await answer(runner(Puppet(*spoken("Cold."))), elsewhere)
        await ears.until("conversation.changed")
    assert JOB.channel == stream.chat_channel(7) != elsewhere.channel
    assert [event for event, _ in ears.heard] == ["conversation.changed"]


async def test_message_without_a_conversation_has_no_title(
    stage: Stage, runner: Callable[..., Runner]
) -> None:
    job = make_job(session_id="s")
    async with Ears(stage.redis, job) as ears:
        made = runner(Puppet(*spoken("x")))
        await answer(made, job)
        await made.aclose()
        await ears.all()
    assert changed(ears) == []


async def test_model_finds_a_better_title_after_the_reply(
    stage: Stage, runner: Callable[..., Runner], database: str
) -> None:
    names = Puppet(*spoken('"Weather', ' in Oslo."\nIt is'))
    async with Ears(stage.redis, JOB) as ears:
        await answer(runner(Puppet(*spoken("Cold. " * 1000)), names))
        await until(names.closed.is_set)
        await ears.until("conversation.changed")
        ears.heard.append(("", {}))
        await ears.until("conversation.changed")
    assert [data["title"] for data in changed(ears)] == [FIRST, "Weather in Oslo."]
    assert await title(database) == "Weather in Oslo."
    (request,) = names.asked
    assert request.options.model == "cheap"
    assert request.options.max_tokens == TITLE_MAX_TOKENS
    assert request.options.system == module.SYSTEM
    assert FIRST in request.message
    assert len(request.message) < 2 * TITLE_MAX_CHARACTERS + 100
    assert request.history == ()


@pytest.mark.parametrize(
    "says",
    [
        [base.OverloadedError("busy")],
        [*spoken("x")[:-1], base.CutError("cut")],
        spoken(),
        spoken(' "" \n'),
    ],
    ids=["refused", "cut", "silent", "empty"],
)
async def test_without_a_title_by_the_model_the_first_words_stay(
    stage: Stage, runner: Callable[..., Runner], database: str, says: list[Any]
) -> None:
    names = Puppet(*says)
    async with Ears(stage.redis, JOB) as ears:
        made = runner(Puppet(*spoken("Cold.")), names)
        assert await answer(made) is Outcome.DONE
        await until(names.closed.is_set)
        await made.aclose()
        await ears.all()
    assert (ears.ends, len(changed(ears))) == (["stream.completed"], 1)
    assert await title(database) == FIRST


async def test_model_that_is_slow_is_given_up(
    stage: Stage, runner: Callable[..., Runner], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply has ended long before."""
    monkeypatch.setattr(module, "TITLE_SECONDS", 0.05)
    names = Puppet()
    assert await answer(runner(Puppet(*spoken("Cold.")), names)) is Outcome.DONE
    await until(names.closed.is_set)
    assert await title(database) == FIRST


async def test_model_that_talks_is_cut(stage: Stage, runner: Callable[..., Runner], database: str) -> None:
    names = Puppet(*spoken(*["word " * 10] * 1000)[:-1])
    await answer(runner(Puppet(*spoken("Cold.")), names))
    await until(names.closed.is_set)
    assert names.says.qsize() > 900


async def test_only_a_few_titles_are_asked_for_at_once(stage: Stage, runner: Callable[..., Runner]) -> None:
    names = Puppet()
    made = runner(Puppet(), names)
    for number in range(TITLES_AT_ONCE + 2):
        job = make_job(f"Hi {number}", f"m{number}", conversation_id=f"c{number}")
        saved = await stage.store.save(job, "x", Decision("end_turn"))
        assert saved is not None
        assert made.titles is not None
        made.titles.made(job, "x", saved)
    async with Ears(stage.redis, JOB) as ears:
        await until(lambda: len(names.asked) == TITLES_AT_ONCE)
        await made.aclose()
        await ears.all()
    assert len(names.asked) == TITLES_AT_ONCE


async def test_end_of_the_process_does_not_wait_for_a_title(
    stage: Stage, runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TITLE_CLOSE_SECONDS", 0.05)
    names = Stubborn()
    made = runner(Puppet(*spoken("Cold.")), names)
    await answer(made)
    await until(lambda: bool(names.asked))
    async with asyncio.timeout(WAIT):
        await made.aclose()
    names.gives_in.set()


# Branches, as far as the model sees them.


async def test_message_is_answered_once_more_without_being_stored_twice(stage: Stage) -> None:
    for job in (JOB, make_job("And now?", "m2", conversation_id="c1")):
        assert await stage.answer(Puppet(*spoken("Cold.")), job) is Outcome.DONE
    puppet = Puppet(*spoken("Warm."))
    again = make_job("", "m3", conversation_id="c1", parent_id="m2", regenerate=True)
    assert await stage.answer(puppet, again) is Outcome.DONE
    (request,) = puppet.asked
    assert request.message == "And now?"
    assert request.history == (Turn("user", FIRST), Turn("assistant", "Cold."))
    assert stage.turns()[-2:] == [("assistant", "Cold.", "complete"), ("assistant", "Warm.", "complete")]


async def test_unknown_parent_ends_as_failed_without_asking_the_model(stage: Stage) -> None:
    await stage.store.save(make_job("secret", "m0", conversation_id="c2"), "yes", Decision("end_turn"))
    puppet, job = Puppet(*spoken("x")), make_job(conversation_id="c1", parent_id="m0")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(puppet, job) is Outcome.DONE
        await ears.all()
    assert puppet.asked == []
    assert (ears.ends, ears.heard[-1][1]["code"]) == (["stream.failed"], "unknown_parent")
