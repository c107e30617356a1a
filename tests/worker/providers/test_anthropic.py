"""The real SDK against a server that answers, fails, stalls and breaks off as told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from legato.protocol.jobs import Turn
from legato.protocol.stream import Usage
from legato.worker import cli, config
from legato.worker.providers import base
from legato.worker.replies import overlap
from legato.worker.replies.model_request import ModelRequest
from tests.waiting import WAIT, until
from tests.worker.providers import sse_server as sse
from tests.worker.providers.claude import anthropic_provider
from tests.worker.providers.sse_server import SseServer
from tests.worker.support import REQUEST, events, failing, model_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from legato.worker.providers.anthropic import Anthropic

KEY = "sk-secret-key"


@asynccontextmanager
async def connected(
    *scripts: list[sse.Step], system: str = "", waits: base.TimeOuts = base.DEFAULT_TIME_OUTS
) -> AsyncIterator[tuple[Anthropic, SseServer]]:
    async with SseServer(*scripts) as server:
        provider = anthropic_provider(
            api_key=KEY,
            model="claude-sonnet-4-6",
            max_tokens=77,
            base_url=server.url,
            system=system,
            waits=waits,
        )
        yield provider, server
        await provider.aclose()


async def test_reply_from_start_to_end() -> None:
    async with connected(sse.whole("Hel", "lo")) as (provider, _):
        assert await events(provider) == [
            base.RequestAccepted("claude-test"),
            base.Used(Usage(input=11, output=1, cache_read=5, cache_write=0)),
            base.Text("Hel"),
            base.Text("lo"),
            base.Used(Usage(input=11, output=9, cache_read=5, cache_write=0)),
            base.Final("end_turn", Usage(input=11, output=9, cache_read=5, cache_write=0)),
        ]


async def test_request_is_what_the_api_takes() -> None:
    """The history goes along, begun by the user and without blank turns; no sampling parameters."""
    history = (
        Turn("assistant", "cut off"),
        Turn("user", "one"),
        Turn("assistant", " "),
        Turn("assistant", "two"),
    )
    async with connected(sse.whole("x"), system="Be brief.") as (provider, server):
        await events(provider, base.ProviderRequest("three", history))
    assert server.requests == [
        {
            "model": "claude-sonnet-4-6",
            "max_tokens": 77,
            "system": "Be brief.",
            "stream": True,
            "cache_control": {"type": "ephemeral"},
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"},
            ],
        }
    ]
    assert KEY.encode() in server.headers[0]


async def test_request_to_go_on_keeps_all_before_it_as_it_was_and_adds_two_turns() -> None:
    """To the byte, for the prompt cache. No prefill: the last turn is the user's."""
    request = base.ProviderRequest("three", (Turn("user", "one"), Turn("assistant", "two")))
    so_far = "Swallows fly to Africa. They "
    rest = request._replace(so_far=so_far, continuation=overlap.continuation(so_far), attempt=2)
    async with connected(sse.whole("x"), sse.whole("They winter"), system="Be brief.") as (provider, server):
        await events(provider, request)
        await events(provider, rest)
    first, second = server.bodies
    end = first.index(b"}]")  # of the messages
    assert second[: end + 1] == first[: end + 1]
    before, after = server.requests
    asked = (
        "Your reply above was cut off by a technical fault. Go on from exactly where it ends, so that both "
        "parts read as one text: begin by repeating its last words, which are given below, and then write "
        "what follows them. Repeat nothing else, do not mention the interruption, and add no introduction."
        "\n\n"
        "<last_words>Swallows fly to Africa. They</last_words>"
    )
    added = [{"role": "assistant", "content": so_far}, {"role": "user", "content": asked}]
    assert after == {**before, "messages": before["messages"] + added}


async def test_blank_text_so_far_is_not_sent() -> None:
    """The API refuses blank turns; nothing is lost by asking as if for the first time."""
    request = base.ProviderRequest("Hi", so_far="\n\n", continuation=overlap.continuation("\n\n"), attempt=2)
    async with connected(sse.whole("x")) as (provider, server):
        await events(provider, request)
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Hi"}]


async def test_system_prompt_that_utf8_cannot_carry_does_not_fail_every_reply() -> None:
    async with connected(sse.whole("x"), system="Be \udcff brief.") as (provider, server):
        await events(provider)
    assert server.requests[0]["system"] == "Be \ufffd brief."


async def test_without_a_system_prompt_none_is_sent() -> None:
    async with connected(sse.whole("x")) as (provider, server):
        await events(provider)
    assert "system" not in server.requests[0]


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "model_context_window_exceeded", "brand_new"])
async def test_stop_reason_is_passed_on_even_if_unknown(reason: str) -> None:
    async with connected(sse.whole("x", reason=reason)) as (provider, _):
        final = (await events(provider))[-1]
    assert isinstance(final, base.Final)
    assert final.stop_reason == reason


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", base.RequestRefusedError),
        (401, "authentication_error", base.RequestRefusedError),
        (404, "not_found_error", base.RequestRefusedError),
        (413, "request_too_large", base.TooLongError),
        (429, "rate_limit_error", base.RateLimitedError),
        (500, "api_error", base.ProviderUnavailableError),
        (503, "unheard_of", base.ProviderUnavailableError),
        (529, "overloaded_error", base.OverloadedError),
    ],
)
async def test_http_error_is_translated_asked_once_and_without_secrets(
    status: int, kind: str, expected: type[base.ProviderError]
) -> None:
    """Asked once: the SDK's own retries are off, or the second request would find no script."""
    async with connected(sse.refused(status, kind)) as (provider, server):
        seen, error = await failing(provider)
    assert (seen, type(error)) == ([], expected)
    assert len(server.requests) == 1
    assert str(status) in str(error)
    assert KEY not in str(error)


TOO_LONG = [
    "prompt is too long: 208310 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 199000 + 21333 > 200000, decrease input length",
    "Input is too long for requested model.",
    "This model's maximum context length is 8192 tokens.",
]


@pytest.mark.parametrize("message", TOO_LONG)
async def test_conversation_that_does_not_fit_is_told_by_the_message(message: str) -> None:
    """The API has the same type for it as for every other request at fault."""
    kind = "invalid_request_error"
    late = [sse.STREAM, sse.START, sse.error_event(kind, message)]
    async with connected(sse.refused(400, kind, message=message), late) as (provider, _):
        for _ in range(2):
            _, error = await failing(provider)
            assert (type(error), error.code) == (base.TooLongError, "context_window")
            assert message in str(error)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error")]
)
async def test_other_types_are_not_sorted_by_their_message(status: int, kind: str) -> None:
    async with connected(sse.refused(status, kind, message="slow down")) as (provider, _):
        _, error = await failing(provider)
    assert error.code != "context_window"
    assert "slow down" in str(error)


async def test_operator_can_tell_one_refusal_from_another_and_reads_no_secret() -> None:
    said = f"bad key {KEY}, Bearer abc.def,\nsk-ant-other-0123456789 \ud83d" + " and more" * 100
    async with connected(sse.refused(400, "invalid_request_error", message=said)) as (provider, _):
        _, error = await failing(provider)
    assert type(error) is base.RequestRefusedError
    assert "bad key [hidden], [hidden] [hidden] \ufffd and more" in str(error)
    assert KEY not in str(error)
    assert len(str(error)) < 400
    assert "\n" not in str(error)


BODIES = [b"", b"<p>Hi", b"[]", b"{}", b'{"error":"Hi"}', b'{"error":{"message":["Hi"]},"input":"Hi"}']


@pytest.mark.parametrize("body", BODIES)
async def test_nothing_but_the_message_is_taken_from_an_error(body: bytes) -> None:
    """Other programs in front of the API repeat the request, and with it what people wrote."""
    head = f"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with connected([sse.send(head.encode() + body)]) as (provider, _):
        _, error = await failing(provider)
    assert str(error) == "HTTP 400, no type, request unknown"


async def test_text_that_a_block_begins_with_is_told_and_none_behind_the_end() -> None:
    begun = sse.sse("content_block_start", index=0, content_block={"type": "text", "text": "Hel"})
    tool = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    other = sse.sse("content_block_start", index=1, content_block=tool)
    end = [sse.stopped("end_turn"), sse.STOP]
    script = [sse.STREAM, sse.START, begun, sse.text("lo"), other, *end, sse.text("!"), begun, *end, sse.EOF_]
    async with connected(script) as (provider, _):
        seen = await events(provider)
    assert [event.text for event in seen if isinstance(event, base.Text)] == ["Hel", "lo"]
    assert sum(isinstance(event, base.Final) for event in seen) == 1
    assert isinstance(seen[-1], base.Final)


async def test_retry_after_is_passed_on() -> None:
    async with connected(sse.refused(429, "rate_limit_error", "retry-after: 3600")) as (provider, _):
        _, error = await failing(provider)
    assert error.retry_after == 3600


async def test_retry_after_that_is_no_number_counts_as_absent() -> None:
    header = "retry-after: Wed, 21 Oct 2026 07:28:00 GMT"
    async with connected(sse.refused(429, "rate_limit_error", header)) as (provider, _):
        _, error = await failing(provider)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("overloaded_error", base.OverloadedError), ("api_error", base.ProviderUnavailableError)],
)
async def test_error_event_in_the_middle_is_told_by_its_type(
    kind: str, expected: type[base.ProviderError]
) -> None:
    script = [sse.STREAM, sse.START, sse.BLOCK, sse.text("a"), sse.error_event(kind)]
    async with connected(script) as (provider, _):
        seen, error = await failing(provider)
    assert (seen[2:], type(error)) == ([base.Text("a")], expected)


async def test_cut_connection() -> None:
    script = [sse.STREAM, sse.START, sse.BLOCK, sse.text("a"), sse.ABORT]
    async with connected(script) as (provider, _):
        seen, error = await failing(provider)
    assert (seen[2:], type(error)) == ([base.Text("a")], base.CutError)


@pytest.mark.parametrize("line", [b"data: {bad json", b"data: ", b"data: \xff{}"])
async def test_garbled_line_is_a_cut_connection(line: bytes) -> None:
    garbled = sse.chunk(b"event: content_block_delta\n" + line + b"\n\n")
    async with connected([sse.STREAM, sse.START, sse.BLOCK, sse.text("a"), garbled, sse.EOF_]) as (
        provider,
        _,
    ):
        seen, error = await failing(provider)
    assert (seen[2:], type(error)) == ([base.Text("a")], base.CutError)


async def test_connection_is_not_given_up_before_the_caller_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else 30 s would be the most that anybody can set."""
    monkeypatch.setattr("legato.worker.providers.anthropic.MODEL_READ_SECONDS", 0.05)
    async with connected([sse.HANG], waits=base.TimeOuts(silence=9)) as (provider, _):
        _, error = await failing(provider, base.Patience(first=0.3, next=9))
    assert (type(error), str(error)) == (base.StalledError, "the model went silent")
    async with connected([sse.HANG]) as (provider, _):
        _, error = await failing(provider)
    assert (type(error), str(error)) == (base.StalledError, "timed out")


async def test_connection_waits_as_long_as_the_settings_say() -> None:
    settings = config.ProviderSettings(
        api_key=KEY, connect_seconds=2, first_token_seconds=40, no_token_seconds=50
    )
    provider = cli.build(settings)
    assert type(provider).__name__ == "Anthropic"
    assert (provider._client.timeout.connect, provider._client.timeout.read) == (2, 50)
    await provider.aclose()


async def test_polite_end_without_message_stop_is_no_success() -> None:
    script = [sse.STREAM, sse.START, sse.BLOCK, sse.text("a"), sse.stopped("end_turn"), sse.EOF_]
    async with connected(script) as (provider, _):
        seen, error = await failing(provider)
    assert (seen[2:3], type(error)) == ([base.Text("a")], base.CutError)
    assert seen[3] == base.Used(Usage(input=11, output=9, cache_read=5)), "paid for, so it is told"


async def test_nobody_listens() -> None:
    async with connected() as (provider, server):
        server._server.close()
        await server._server.wait_closed()
        _, error = await failing(provider)
    assert type(error) is base.ProviderUnavailableError
    assert error.retry is base.Retry.LATER


@pytest.mark.parametrize("silence", [sse.HANG, sse.PINGS])
async def test_silence_ends_after_the_patience_for_further_text_pings_or_not(silence: sse.Step) -> None:
    script = [sse.STREAM, sse.START, sse.BLOCK, sse.text("a"), silence]
    async with connected(script) as (provider, server):
        seen, error = await failing(provider, base.Patience(first=9, next=0.1))
        assert (seen[2:], type(error)) == ([base.Text("a")], base.StalledError)
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


@pytest.mark.parametrize("silence", [[sse.HANG], [sse.STREAM, sse.START, sse.PINGS]])
async def test_silence_ends_after_the_patience_for_the_first_text(silence: list[sse.Step]) -> None:
    async with connected(silence) as (provider, server):
        _, error = await failing(provider, base.Patience(first=0.1, next=9))
        assert type(error) is base.StalledError
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


async def test_slow_consumer_is_not_the_models_silence() -> None:
    async with connected(sse.whole("a", "b", "c")) as (provider, _):
        model = model_of(provider, base.Patience(first=9, next=0.2))
        request = ModelRequest(model, REQUEST, ahead=1)
        seen: list[base.Event] = []
        while arrivals := await request.take():
            seen += [event for _, event in arrivals]
            await asyncio.sleep(0.25 if isinstance(seen[-1], base.Text) else 0)
    assert seen[-1] == base.Final("end_turn", Usage(input=11, output=9, cache_read=5, cache_write=0))
    assert seen[2:4] == [base.Text("a"), base.Text("b")]


@pytest.mark.parametrize("before", [[], [sse.STREAM, sse.START], [sse.STREAM, sse.START, sse.text("a")]])
async def test_cancelling_who_waits_closes_the_request_though_the_model_is_silent(
    before: list[sse.Step],
) -> None:
    async with connected([*before, sse.HANG]) as (provider, server):
        task = asyncio.create_task(events(provider))
        async with asyncio.timeout(WAIT):
            await until(lambda: bool(server.requests))
            assert not server.closed.is_set()
            task.cancel()
            await server.closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_the_generator_closes_the_request() -> None:
    async with connected([sse.STREAM, sse.START, sse.text("a"), sse.HANG]) as (provider, server):
        async with aclosing(provider.stream(REQUEST)) as stream:
            await anext(stream)
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


async def test_connection_is_used_again_after_a_whole_reply() -> None:
    async with connected(sse.whole("a"), sse.whole("b")) as (provider, server):
        await events(provider)
        await events(provider)
        assert len(server.requests) == 2
        assert not server.closed.is_set()
