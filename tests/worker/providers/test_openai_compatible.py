"""The provider against a server that answers, fails, stalls and breaks off as told."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol.jobs import Turn
from legato.protocol.settings import SettingsError
from legato.protocol.stream import Usage
from legato.worker.providers import base
from legato.worker.providers import openai_compatible as module
from legato.worker.providers.openai_compatible import ModelServer, OpenAiCompatible
from legato.worker.replies import overlap
from legato.worker.replies.model_request import ModelRequest
from tests import certificates
from tests.waiting import WAIT, until
from tests.worker.providers import chat_completions as chat
from tests.worker.providers import sse_server as sse
from tests.worker.providers.sse_server import SseServer
from tests.worker.support import REQUEST, events, failing, model_of, said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

KEY = "sk-secret-key"
HEADER = "header-secret"
USAGE = Usage(input=11, output=9, cache_read=5)


@asynccontextmanager
async def connected(
    *scripts: list[sse.Step],
    key: str = KEY,
    path: str = "/v1",
    headers: Mapping[str, str] | None = None,
    system: str = "",
    waits: base.TimeOuts = base.DEFAULT_TIME_OUTS,
) -> AsyncIterator[tuple[OpenAiCompatible, SseServer]]:
    async with SseServer(*scripts) as server:
        target = ModelServer(server.url + path, key, headers or {})
        provider = OpenAiCompatible(target, model="asked-for", max_tokens=77, system=system, waits=waits)
        try:
            yield provider, server
        finally:
            await provider.aclose()


async def test_reply_from_start_to_end() -> None:
    async with connected(chat.whole("Hel", "lo")) as (provider, _):
        assert await events(provider) == [
            base.RequestAccepted(chat.MODEL),
            base.Text("Hel"),
            base.Text("lo"),
            base.Used(USAGE),
            base.Final("end_turn", USAGE),
        ]


async def test_request_is_what_the_api_takes() -> None:
    """The history goes along, begun by the user, without blank turns, in turns."""
    history = (
        Turn("assistant", "cut off"),
        Turn("user", "one"),
        Turn("assistant", " "),
        Turn("assistant", "two"),
        Turn("assistant", "three"),
        Turn("user", "unanswered"),
    )
    async with connected(chat.whole("x"), system="Be brief.") as (provider, server):
        await events(provider, base.ProviderRequest("four", history))
    assert server.requests == [
        {
            "model": "asked-for",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two\n\nthree"},
                {"role": "user", "content": "unanswered\n\nfour"},
            ],
            "stream": True,
            "max_tokens": 77,
            "stream_options": {"include_usage": True},
        }
    ]
    head = server.headers[0].decode().lower()
    assert head.startswith("post /v1/chat/completions http/1.1\r\n")
    assert f"authorization: bearer {KEY}" in head
    assert "accept-encoding: identity" in head


async def test_request_to_go_on_keeps_all_before_it_as_it_was_and_adds_two_turns() -> None:
    request = base.ProviderRequest("three", (Turn("user", "one"), Turn("assistant", "two")))
    so_far = "Swallows fly to Africa. They "
    asked = overlap.continuation(so_far)
    rest = request._replace(so_far=so_far, continuation=asked, attempt=2)
    async with connected(chat.whole("x"), chat.whole("They winter"), system="Be brief.") as (
        provider,
        server,
    ):
        await events(provider, request)
        await events(provider, rest)
    first, second = server.bodies
    end = first.index(b"}]")  # of the messages
    assert second[: end + 1] == first[: end + 1]
    before, after = server.requests
    added = [{"role": "assistant", "content": so_far}, {"role": "user", "content": asked}]
    assert after == {**before, "messages": before["messages"] + added}


async def test_blank_text_so_far_is_not_sent() -> None:
    request = base.ProviderRequest("Hi", so_far="\n\n", continuation=overlap.continuation("\n\n"), attempt=2)
    async with connected(chat.whole("x")) as (provider, server):
        await events(provider, request)
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Hi"}]


async def test_text_that_utf8_cannot_carry_does_not_fail_the_reply() -> None:
    async with connected(chat.whole("x"), system="Be \udcff brief.") as (provider, server):
        await events(
            provider, base.ProviderRequest("a\ud83d", (Turn("user", "\ud83d\ude00"), Turn("assistant", "b")))
        )
    assert [each["content"] for each in server.requests[0]["messages"]] == [
        "Be \ufffd brief.",
        "😀",
        "b",
        "a\ufffd",
    ]


async def test_local_server_without_a_key_gets_none() -> None:
    async with connected(chat.whole("x"), key="") as (provider, server):
        await events(provider)
    assert b"authorization" not in server.headers[0].lower()


async def test_netrc_gives_no_password_away(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for key in ("", KEY):
        async with connected(chat.whole("x"), key=key) as (provider, server):
            await events(provider)
        assert b"basic" not in server.headers[0].lower()


async def test_further_headers_and_what_the_address_holds_are_sent() -> None:
    headers = {"X-Title": "Legato", "api-key": HEADER}
    async with connected(chat.whole("x"), key="", path="/v1/?api-version=3", headers=headers) as (
        provider,
        server,
    ):
        await events(provider)
    head = server.headers[0]
    assert head.startswith(b"POST /v1/chat/completions?api-version=3 HTTP/1.1\r\n")
    assert b"X-Title: Legato\r\n" in head
    assert f"api-key: {HEADER}\r\n".encode() in head


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"message": "bad"}, base.RequestRefusedError),
        (401, {"code": "invalid_api_key"}, base.RequestRefusedError),
        (402, {"message": "no credits"}, base.RequestRefusedError),
        (404, {"code": "model_not_found"}, base.RequestRefusedError),
        (408, {}, base.ProviderUnavailableError),
        (413, {}, base.TooLongError),
        (429, {"code": "rate_limit_exceeded", "type": "tokens"}, base.RateLimitedError),
        (429, {}, base.RateLimitedError),
        (429, {"code": "insufficient_quota"}, base.RequestRefusedError),
        (500, {"type": "server_error"}, base.ProviderUnavailableError),
        (502, {}, base.ProviderUnavailableError),
        (503, {"message": "Loading model", "type": "unavailable_error"}, base.OverloadedError),
    ],
)
async def test_http_error_is_translated_asked_once_and_without_secrets(
    status: int, error: Any, expected: type[base.ProviderError]
) -> None:
    async with connected(chat.refused(status, **error)) as (provider, server):
        seen, raised = await failing(provider)
    assert (seen, type(raised)) == ([], expected)
    assert len(server.requests) == 1
    assert str(raised).startswith(f"HTTP {status}, ")
    assert KEY not in str(raised)


TOO_LONG = [
    {"error": {"code": "context_length_exceeded", "message": "Too long", "type": "invalid_request_error"}},
    {
        "error": {
            "message": "This model's maximum context length is 8192 tokens. However, you requested more."
        }
    },
    {
        "object": "error",
        "message": "The decoder prompt (length 9) is longer than the maximum model length of 8.",
    },
    {"error": {"message": "the request exceeds the available context size, try increasing it", "code": 400}},
    {"error": "input length exceeds the context length"},
    {
        "error": {
            "message": "'max_tokens' or 'max_completion_tokens' is too large. Maximum context length is 8."
        }
    },
]


@pytest.mark.parametrize("body", TOO_LONG)
async def test_conversation_that_does_not_fit_is_told_from_the_message(body: Any) -> None:
    async with connected(chat.refused(400, body=body)) as (provider, server):
        _, error = await failing(provider)
    assert (type(error), error.code) == (base.TooLongError, "context_window")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "bad key"}},
        {"error": "bad key"},
        {"object": "error", "message": "bad key"},
        {"message": "bad key"},
        {"detail": "bad key"},
    ],
)
async def test_message_is_found_wherever_servers_put_it(body: Any) -> None:
    async with connected(chat.refused(401, "x-request-id: req-7", body=body)) as (provider, _):
        _, error = await failing(provider)
    assert str(error) == "HTTP 401, no type, request req-7: bad key"


BODIES = [
    b"",
    b"<p>Hi",
    b"[]",
    b"{}",
    b'"\xff"',
    b"[" * 60_000,
    b'{"detail": [{"input": "Hi"}]}',
    b'{"error": {"message": ["Hi"], "type": "a b", "code": {}}, "input": "Hi"}',
]


@pytest.mark.parametrize("body", BODIES)
async def test_nothing_but_the_message_is_taken_from_an_error(body: bytes) -> None:
    """Servers repeat the request, and with it what people wrote."""
    async with connected(chat.answered(400, body, "x-request-id: a b")) as (provider, _):
        _, error = await failing(provider)
    assert str(error) == "HTTP 400, no type, request unknown"


async def test_operator_reads_the_reason_and_no_secret() -> None:
    message = f"bad key {KEY}, {HEADER}, Bearer abc.def,\nsk-other-0123456789 \ud83d" + " and more" * 100
    headers = {"api-key": HEADER}
    async with connected(chat.refused(400, message=message), headers=headers) as (provider, _):
        _, error = await failing(provider)
    assert "bad key [hidden], [hidden], [hidden] [hidden] \ufffd and more" in str(error)
    assert len(str(error)) < 400
    assert "\n" not in str(error)


def test_secrets_do_not_show_in_the_text_of_a_server() -> None:
    server = ModelServer("http://user:geheim@h", "geheim", {"a": "geheim"})
    assert "geheim" not in repr(server)
    assert server.secrets == ("geheim", "geheim", "geheim")


async def test_error_of_any_size_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server could fill the memory, or keep the reply for ever."""
    endless = [sse.send(b"HTTP/1.1 500 No\r\n\r\n"), sse.Step("pings", b"x" * 1000)]
    monkeypatch.setattr(module, "MODEL_MAX_ERROR_BYTES", 5000)
    async with connected(endless) as (provider, server):
        _, error = await failing(provider)
        assert type(error) is base.ProviderUnavailableError
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


async def test_error_whose_text_breaks_off_is_told_by_its_status() -> None:
    cut = [sse.send(b"HTTP/1.1 429 No\r\nContent-Length: 99\r\n\r\n{"), sse.ABORT]
    async with connected(cut) as (provider, _):
        _, error = await failing(provider)
    assert type(error) is base.RateLimitedError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["retry-after: 3600"], 3600),
        (["retry-after: 2", "retry-after-ms: 1500"], 1.5),
        (["retry-after: -1"], 0),
        (["retry-after: nan"], None),
        (["retry-after: inf"], None),
        (["retry-after: Wed, 21 Oct 2026 07:28:00 GMT"], None),
        ([], None),
    ],
)
async def test_retry_after(headers: list[str], seconds: float | None) -> None:
    async with connected(chat.refused(429, *headers)) as (provider, _):
        _, error = await failing(provider)
    assert error.retry_after == seconds


REFUSALS_OF_USAGE = [
    (400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}]}),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS_OF_USAGE)
async def test_server_that_refuses_to_count_is_not_asked_to_again(status: int, body: Any) -> None:
    async with connected(chat.refused(status, body=body), chat.whole("a"), chat.whole("b")) as (
        provider,
        server,
    ):
        assert base.Text("a") in await events(provider)
        assert base.Text("b") in await events(provider)
    assert ["stream_options" in request for request in server.requests] == [True, False, False]


async def test_reasoning_model_is_given_its_limit_by_another_name() -> None:
    message = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    refused = chat.refused(400, message=message, code="unsupported_parameter")
    async with connected(refused, chat.whole("a"), chat.whole("b")) as (provider, server):
        await events(provider)
        await events(provider)
    limits = [(each.get("max_tokens"), each.get("max_completion_tokens")) for each in server.requests]
    assert limits == [(77, None), (None, 77), (None, 77)]


async def test_server_that_refuses_whatever_is_sent_is_asked_three_times_and_nothing_is_learnt() -> None:
    refused = chat.refused(400, message="stream_options or max_completion_tokens or something")
    async with connected(*[refused] * 3, chat.whole("a")) as (provider, server):
        _, error = await failing(provider)
        assert type(error) is base.RequestRefusedError
        assert len(server.requests) == 3
        await events(provider)
    assert server.requests[3] == server.requests[0]


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
async def test_page_is_no_stream(kind: str) -> None:
    """Most often the address lacks its /v1."""
    async with connected(chat.answered(200, b"<h1>Welcome</h1>", f"Content-Type: {kind}")) as (provider, _):
        _, error = await failing(provider)
    assert type(error) is base.RequestRefusedError
    assert "is provider.base_url right?" in str(error)


async def test_error_with_status_200_is_an_error() -> None:
    error = {"message": "slow down", "code": 429}
    script = chat.answered(200, json.dumps({"error": error}).encode(), "Content-Type: application/json")
    async with connected(script) as (provider, _):
        _, raised = await failing(provider)
    assert type(raised) is base.RateLimitedError


async def test_redirection_does_not_take_the_key_elsewhere() -> None:
    async with connected(chat.whole("x")) as (_, other):
        script = chat.answered(307, b"", f"Location: {other.url}/v1/chat/completions")
        async with connected(script) as (provider, _):
            _, error = await failing(provider)
        assert other.requests == []
    assert type(error) is base.RequestRefusedError


async def test_cut_connection() -> None:
    async with connected([sse.STREAM, chat.text("a"), sse.ABORT]) as (provider, _):
        seen, error = await failing(provider)
    assert (seen[1:], type(error)) == ([base.Text("a")], base.CutError)


async def test_connection_that_is_cut_before_any_answer() -> None:
    async with connected([sse.ABORT]) as (provider, _):
        seen, error = await failing(provider)
    assert (seen, type(error)) == ([], base.CutError)
    assert error.retry is base.Retry.NOW


async def test_answer_that_is_not_http() -> None:
    async with connected([sse.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")]) as (provider, _):
        seen, error = await failing(provider)
    assert (seen, type(error)) == ([], base.CutError)


@pytest.mark.parametrize("last", [[sse.EOF_], [chat.DONE, sse.EOF_], [chat.DONE, sse.HANG]])
async def test_polite_end_without_a_finish_reason_is_no_success(last: list[sse.Step]) -> None:
    async with connected([sse.STREAM, chat.text("a"), *last]) as (provider, _):
        seen, error = await failing(provider)
    assert (seen[1:], type(error)) == ([base.Text("a")], base.CutError)


@pytest.mark.parametrize("last", [[sse.EOF_], [sse.ABORT], [chat.DONE, sse.ABORT], [chat.DONE, sse.HANG]])
async def test_reply_is_whole_once_the_model_has_ended(last: list[sse.Step]) -> None:
    """However the connection ends."""
    async with connected([sse.STREAM, chat.text("a"), chat.finished(), *last]) as (provider, _):
        assert await events(provider) == [
            base.RequestAccepted(chat.MODEL),
            base.Text("a"),
            base.Final("end_turn", Usage()),
        ]


@pytest.mark.parametrize("silence", [sse.HANG, chat.COMMENTS])
async def test_usage_is_not_waited_for_for_ever(silence: sse.Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODEL_USAGE_SECONDS", 0.1)
    async with connected([sse.STREAM, chat.text("a"), chat.finished(), silence]) as (provider, server):
        assert (await events(provider))[-1] == base.Final("end_turn", Usage())
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


async def test_error_event_comes_after_the_text_before_it() -> None:
    """In one piece of bytes."""
    script = [
        sse.STREAM,
        sse.send(b"".join(step.data for step in (chat.text("a"), chat.error_event(code=503)))),
    ]
    async with connected(script) as (provider, _):
        seen, error = await failing(provider)
    assert (seen[1:], type(error)) == ([base.Text("a")], base.OverloadedError)


async def test_nobody_listens() -> None:
    async with connected() as (provider, server):
        server._server.close()
        await server._server.wait_closed()
        _, error = await failing(provider)
    assert type(error) is base.ProviderUnavailableError
    assert error.retry is base.Retry.LATER
    assert error.__cause__ is None, "the library's errors hold addresses, which may hold a password"


async def test_connection_is_not_given_up_before_the_caller_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODEL_READ_SECONDS", 0.05)
    async with connected([sse.HANG], waits=base.TimeOuts(silence=9)) as (provider, _):
        _, error = await failing(provider, base.Patience(first=0.3, next=9))
    assert (type(error), str(error)) == (base.StalledError, "the model went silent")
    async with connected([sse.HANG]) as (provider, _):
        _, error = await failing(provider)
    assert (type(error), str(error)) == (base.StalledError, "timed out")


@pytest.mark.parametrize("silence", [sse.HANG, chat.COMMENTS])
async def test_silence_ends_after_the_patience_for_further_text(silence: sse.Step) -> None:
    async with connected([sse.STREAM, chat.text("a"), silence]) as (provider, server):
        seen, error = await failing(provider, base.Patience(first=9, next=0.1))
        assert (seen[1:], type(error)) == ([base.Text("a")], base.StalledError)
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


@pytest.mark.parametrize("silence", [[sse.HANG], [sse.STREAM, chat.ROLE, chat.COMMENTS]])
async def test_silence_ends_after_the_patience_for_the_first_text(silence: list[sse.Step]) -> None:
    async with connected(silence) as (provider, server):
        _, error = await failing(provider, base.Patience(first=0.1, next=9))
        assert type(error) is base.StalledError
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


@pytest.mark.parametrize(
    "before",
    [
        [],
        [sse.STREAM, chat.ROLE],
        [sse.STREAM, chat.text("a")],
        [sse.STREAM, chat.text("a"), chat.finished()],
        [sse.send(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n")],
    ],
)
async def test_cancelling_who_waits_closes_the_request_though_the_model_is_silent(
    before: list[sse.Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MODEL_USAGE_SECONDS", WAIT)
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
    async with connected([sse.STREAM, chat.text("a"), sse.HANG]) as (provider, server):
        async with aclosing(provider.stream(REQUEST)) as stream:
            await anext(stream)
        async with asyncio.timeout(WAIT):
            await server.closed.wait()


async def test_slow_consumer_is_not_the_models_silence() -> None:
    async with connected(chat.whole("a", "b", "c")) as (provider, _):
        request = ModelRequest(model_of(provider, base.Patience(first=9, next=0.2)), REQUEST, ahead=1)
        seen: list[base.Event] = []
        while arrivals := await request.take():
            seen += [event for _, event in arrivals]
            await asyncio.sleep(0.25 if isinstance(seen[-1], base.Text) else 0)
    assert seen[-1] == base.Final("end_turn", USAGE)


@pytest.mark.parametrize("pause", [[], [sse.PAUSE]])
async def test_connection_is_used_again_after_a_whole_reply(
    pause: list[sse.Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the worker closes the stream at Final, and the answer may end a little after its data."""
    monkeypatch.setattr(module, "MODEL_STREAM_END_SECONDS", WAIT)
    *data, end = chat.whole("a")
    script = [*data, *pause, end]
    async with connected(script, script) as (provider, server):
        for _ in range(2):
            async with aclosing(provider.stream(REQUEST)) as stream:
                async for event in stream:
                    if isinstance(event, base.Final):
                        break
        assert (len(server.requests), server.accepted) == (2, 1)


async def test_connection_is_used_again_after_an_error() -> None:
    async with connected(chat.refused(500), chat.whole("b")) as (provider, server):
        await failing(provider)
        await events(provider)
        assert server.accepted == 1


async def test_more_replies_at_once_than_an_http_client_has_connections_by_default() -> None:
    silent = [sse.STREAM, chat.text("a"), sse.HANG]
    async with connected(*[silent] * 150) as (provider, server):
        streams = [provider.stream(REQUEST) for _ in range(150)]
        async with asyncio.timeout(WAIT):
            await asyncio.gather(*(anext(stream) for stream in streams))
        assert len(server.requests) == 150
        await asyncio.gather(*(stream.aclose() for stream in streams))


async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SseServer(chat.whole("a")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        target = ModelServer("http://models.example/v1")
        provider = OpenAiCompatible(target, model="m", max_tokens=1)
        assert base.Text("a") in await events(provider)
        await provider.aclose()
    assert proxy.headers[0].startswith(b"POST http://models.example/v1/chat/completions HTTP/1.1\r\n")


async def test_password_of_a_proxy_is_sent_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SseServer(chat.whole("a")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:secret@"))
        provider = OpenAiCompatible(ModelServer("http://models.example/v1"), model="m", max_tokens=1)
        assert base.Text("a") in await events(provider)
        await provider.aclose()
    assert b"proxy-authorization: basic bwu6c2vjcmv0\r\n" in proxy.headers[0].lower()


async def test_password_in_the_address_is_sent_in_place_of_a_key() -> None:
    async with SseServer(chat.whole("a")) as server:
        address = server.url.replace("//", "//me:secret@")
        provider = OpenAiCompatible(ModelServer(f"{address}/v1"), model="m", max_tokens=1)
        assert base.Text("a") in await events(provider)
        await provider.aclose()
    assert b"authorization: basic bwu6c2vjcmv0\r\n" in server.headers[0].lower()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificates.make(folder)
    return folder


@pytest.mark.parametrize("trusted", [True, False])
async def test_certificate_must_be_trusted(tls: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tls / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    async with SseServer(chat.whole("a"), tls=context) as server:
        provider = OpenAiCompatible(ModelServer(f"{server.url}/v1", KEY), model="m", max_tokens=1)
        seen, error = await said(provider, REQUEST, base.Patience(WAIT, WAIT))
        await provider.aclose()
        assert len(server.requests) == trusted
    assert (base.Text("a") in seen, type(error)) == (
        (True, type(None)) if trusted else (False, base.ProviderUnavailableError)
    )


async def test_no_proxy_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with connected(chat.whole("a")) as (provider, _):
        assert base.Text("a") in await events(provider)


async def test_proxy_that_cannot_be_used_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://geheim@127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(SettingsError, match=r"^https_proxy: ") as caught:
        OpenAiCompatible(ModelServer("https://models.example/v1"), model="m", max_tokens=1)
    assert "geheim" not in str(caught.value)
