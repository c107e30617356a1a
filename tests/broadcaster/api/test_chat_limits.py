"""What people write is limited by the settings: a message is refused whole, a history cut by whole turns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.config import Auth, Chat, Server
from legato.protocol.jobs import MAX_REQUEST_BYTES, MAX_TURNS
from legato.protocol.settings import Redis
from tests.broadcaster.api.test_chat import SECRET, jobs, redis, send, token
from tests.broadcaster.conftest import local_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["redis"]

DEFAULTS = Chat()


@pytest.fixture
def chat() -> Chat:
    """Small limits."""
    return Chat(max_message_characters=10, max_history_turns=4, max_history_characters=20)


@pytest.fixture
async def server(valkey_url, chat) -> AsyncIterator[Any]:
    settings = local_settings(redis=Redis(url=valkey_url), auth=Auth(jwt_secret=SECRET), chat=chat)
    async with running(settings) as started:
        yield started


def talk(*texts: str) -> list[dict[str, str]]:
    """Turns of the user and of the assistant by turns."""
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


async def queued(redis) -> list[tuple[str, list[str]]]:
    """Message and history of the jobs."""
    return [(job.message, [turn.content for turn in job.history]) for job in await jobs(redis)]


async def test_a_message_is_taken_up_to_its_limit_and_refused_beyond(server, redis):
    for text in ("x" * 10, "é" * 10, "\U0001f600" * 10):
        assert (await send(server, {"message": text}))[0] == 200
    status, answer = await send(server, {"message": "x" * 11})
    reason = "Expected at most 10 characters, not 11"
    assert (status, answer) == (422, {"message": reason, "errors": {"message": [reason]}})
    assert len(await jobs(redis)) == 3


async def test_a_message_that_is_refused_leaves_its_idempotency_key_free(server, redis):
    headers = token() | {"Idempotency-Key": "k"}
    assert (await send(server, {"message": "x" * 11}, headers))[0] == 422
    assert (await send(server, {"message": "x" * 10}, headers))[0] == 200


async def test_a_history_within_the_limits_is_told_whole_and_not_mentioned(server, redis):
    status, answer = await send(
        server, {"message": "Hi", "history": talk("aaaaa", "bbbbb", "ccccc", "ddddd")}
    )
    assert (status, list(answer)) == (200, ["message_id"])
    assert await queued(redis) == [("Hi", ["aaaaa", "bbbbb", "ccccc", "ddddd"])]
    assert [job.history_cut for job in await jobs(redis)] == [False]


CUT = [
    (talk("a", "b", "c", "d", "e", "f"), 2, ["c", "d", "e", "f"]),
    (talk("a", "b", "c", "d", "e"), 2, ["c", "d", "e"]),
    (talk("aaaaa", "bbbbb", "ccccc", "dddddd"), 2, ["ccccc", "dddddd"]),
    (talk("a", "b" * 21, "c", "d"), 2, ["c", "d"]),
    (talk("a", "b", "c", "d" * 21), 4, []),
]


@pytest.mark.parametrize(("history", "dropped", "kept"), CUT)
async def test_a_longer_history_is_cut_and_the_answer_says_so(server, redis, history, dropped, kept):
    status, answer = await send(server, {"message": "Hi", "history": history})
    assert (status, answer.pop("history_dropped")) == (200, dropped)
    assert list(answer) == ["message_id"]
    assert [job.history_cut for job in await jobs(redis)] == [True]
    assert await queued(redis) == [("Hi", kept)]


async def test_a_repeated_request_is_told_the_same(server, redis):
    headers = token() | {"Idempotency-Key": "k"}
    body = {"message": "Hi", "history": talk(*"abcdef")}
    answers = [await send(server, body, headers) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0][1]["history_dropped"] == 2
    assert len(await jobs(redis)) == 1


class TestDefaults:
    @pytest.fixture
    def chat(self) -> Chat:
        return DEFAULTS

    async def test_a_pasted_page_and_a_long_answer_stay_whole(self, server, redis):
        """Both were too long once: the message was refused, the answer was cut to 4,000 characters."""
        page, answer = "é" * 20_000, "word " * 2_178
        body = {"message": page, "history": talk(page, answer, "and?", answer)}
        assert list((await send(server, body))[1]) == ["message_id"]
        assert await queued(redis) == [(page, [page, answer, "and?", answer])]

    async def test_the_largest_request_within_the_limits_fits_into_the_body(self, server, chat):
        """Also in a script of three bytes a character, as most of the world's have at most."""
        texts = "語" * (chat.max_history_characters // chat.max_history_turns)
        history = talk(*[texts] * chat.max_history_turns)
        body = json.dumps(
            {"message": "語" * chat.max_message_characters, "history": history}, ensure_ascii=False
        )
        assert list((await send(server, body.encode()))[1]) == ["message_id"]

    async def test_what_is_beyond_the_absolute_bounds_is_refused(self, server):
        status, answer = await send(server, {"message": "x", "history": talk(*"x" * (MAX_TURNS + 1))})
        assert (status, list(answer["errors"])) == (422, ["history"])
        assert str(MAX_TURNS) in answer["message"]


async def test_no_setting_of_the_server_makes_a_body_parsed_that_no_job_could_hold(valkey_url):
    settings = local_settings(
        server=Server(port=0, drain_seconds=0, max_request_bytes=MAX_REQUEST_BYTES * 2),
        redis=Redis(url=valkey_url),
        auth=Auth(jwt_secret=SECRET),
    )
    async with running(settings) as server:
        body = b'{"message": "x"}'
        assert (await send(server, body.ljust(MAX_REQUEST_BYTES)))[0] == 200
        assert (await send(server, body.ljust(MAX_REQUEST_BYTES + 1)))[0] == 413


def test_the_client_keeps_to_the_defaults():
    source = (Path(__file__).parents[3] / "client-js" / "src" / "limits.ts").read_text()
    numbers = dict(re.findall(r"^export const (\w+) = ([\d_]+);", source, re.MULTILINE))
    assert {name: int(number) for name, number in numbers.items()} == {
        "MAX_MESSAGE": DEFAULTS.max_message_characters,
        "MAX_HISTORY": DEFAULTS.max_history_turns,
        "MAX_HISTORY_CHARACTERS": DEFAULTS.max_history_characters,
    }
