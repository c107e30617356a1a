"""An agent's reply over real Redis: steps, tools, approvals, and what is left when a worker dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from legato.protocol import wire
from legato.protocol.redis.retry import Backend
from legato.protocol.stream import Usage
from legato.worker.agents import Agent, Call, ToolError, tool
from legato.worker.jobs.cancel import CancelFlags
from legato.worker.jobs.consumer import REDIS_DOWN
from legato.worker.jobs.queue import JobQueue, ParkedJob
from legato.worker.limits import TOOL_MAX_CALLS, WAITING_POSTPONE_MS
from legato.worker.observability.counters import Counters
from legato.worker.providers import base
from legato.worker.providers.scripted import Scripted
from legato.worker.replies.log import NOTHING, Beside, MessageLog, TokenLog
from legato.worker.replies.model import AttemptPolicy, Model
from legato.worker.replies.runner import Outcome, Runner
from legato.worker.replies.stop import Control, StopReason
from legato.worker.store.conversations import DatabaseUnavailableError
from tests.waiting import WAIT, until
from tests.worker.support import END, PATIENT, STARTED, Ears, Puppet, keys, make_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from legato.protocol.jobs import Job
    from legato.worker.agents import Tool
    from legato.worker.store.conversations import Store

LOGGER = logging.getLogger("legato.worker")
QUEUE = "q"


class World:
    """What tools have done to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.effects: Counter[str] = Counter()
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()

    def tools(self, **options: Any) -> list[Tool]:
        @tool(show="output")
        async def weather(city: str, call: Call) -> dict[str, Any]:
            """The weather of a city."""
            self.calls.append(("weather", call.id))
            return {"city": city, "degrees": 7}

        @tool(**options)
        async def pay(amount: int, call: Call) -> str:
            """Pay an amount."""
            self.calls.append(("pay", call.id))
            self.effects[call.id] += 1
            return f"paid {amount}"

        @tool
        async def broken() -> None:
            """Always fails."""
            raise ToolError("no such table")

        @tool(timeout=60)
        async def slow(call: Call) -> str:
            """Takes its time."""
            self.calls.append(("slow", call.id))
            self.started.set()
            await self.go_on.wait()
            return "done"

        return [weather, pay, broken, slow]


class AgentStage:
    def __init__(self, redis: Redis, store: Store) -> None:
        self.redis = redis
        self.store = store
        self.world = World()
        self.counters = Counters()

    def runner(self, agent: Any, tries: int = 2, **model: Any) -> Runner:
        return Runner(
            messages=TokenLog(self.redis, tries=tries, retention=3600),
            flags=CancelFlags(self.redis),
            store=self.store,
            model=Model(policy=AttemptPolicy(PATIENT, 0), tries=tries, **{"provider": Scripted(), **model}),
            redis=Backend("Redis", REDIS_DOWN, LOGGER),
            database=Backend("the database", (DatabaseUnavailableError,), LOGGER),
            timeout=WAIT,
            agents={} if agent is None else {"default": agent},
            counters=self.counters,
        )

    def agent(self, tools: Sequence[Tool] | None = None, **options: Any) -> Agent:
        return Agent(tools=self.world.tools() if tools is None else tools, **options)

    def parking(self, job: Job) -> ParkedJob:
        name = wire.parked_name(job.app_id, job.channel, job.message_id)
        return ParkedJob(self.redis, QUEUE, name, b"{}")  # type: ignore[arg-type]

    async def answer(
        self, agent: Any, job: Job, control: Control | None = None, ticket: str = "", **options: Any
    ) -> Outcome:
        async with asyncio.timeout(WAIT):
            runner = self.runner(agent, **options)
            return await runner.run(job, control or Control(), ticket, self.parking(job))

    async def decide(self, job: Job, call: str, *, approve: bool, note: str = "") -> None:
        key = wire.approvals_key(job.app_id, job.channel, job.message_id)
        value = msgspec.json.encode({"approve": approve, "note": note, "at": 1})
        assert await self.redis.hset(key, call, value) == 0, "the call waits for no approval"

    async def state(self, job: Job) -> str:
        return (await self.redis.hget(keys(job)[0], "state") or b"").decode()


@pytest.fixture
def stage(redis: Redis, store: Store) -> AgentStage:
    return AgentStage(redis, store)


def script(words: str, message_id: str = "m1", **fields: Any) -> Job:
    return make_job(f"#script rate=0 {words}", message_id, **fields)


def names(ears: Ears) -> list[str]:
    """The names of the events heard, successive equal ones once."""
    found: list[str] = []
    for event, _ in ears.heard:
        if not found or found[-1] != event:
            found.append(event)
    return found


def data_of(ears: Ears, name: str) -> list[Any]:
    return [data for event, data in ears.heard if event == name]


def offsets_are_whole(ears: Ears) -> None:
    """Each entry was published once, in order, and parts say where they are."""
    numbered = [one for one in ears.envelopes if one.command in ("", wire.SKIP) and one.stream]
    assert [one.stream[1] for one in numbered if one.stream] == list(range(len(numbered)))
    tokens = 0
    for one in numbered:
        if one.command == wire.SKIP:
            continue
        message = msgspec.json.decode(one.payload)
        data = msgspec.json.decode(message["data"])
        assert data["tokenIndex"] == tokens
        if message["event"] == "token.received":
            tokens += 1
        else:
            assert one.stream is not None
            assert data["offset"] == one.stream[1]


async def test_tools_are_called_and_their_results_go_to_the_model(stage: AgentStage) -> None:
    job = script('tokens=2 tool=weather:{"city":"Oslo"} echo tokens=2')
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent(), job) is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    assert names(ears) == [
        *("stream.started", "token.received", "tool.called", "step.completed", "tool.finished"),
        *("token.received", "step.completed", "stream.completed"),
    ]
    (called,), (finished,) = data_of(ears, "tool.called"), data_of(ears, "tool.finished")
    assert called["input"] == {"city": "Oslo"}
    assert finished["call"] == called["call"] == stage.world.calls[0][1]
    assert finished["output"] == {"city": "Oslo", "degrees": 7}
    assert '"degrees":7' in "".join(ears.tokens)
    assert [data["stopReason"] for data in data_of(ears, "step.completed")] == ["tool_use", "end_turn"]
    (end,) = data_of(ears, "stream.completed")
    assert end["totalTokens"] == len(ears.tokens)
    steps = data_of(ears, "step.completed")
    assert end["usage"]["output"] == sum(data["usage"]["output"] for data in steps)


async def test_calls_of_one_step_run_at_the_same_time(stage: AgentStage) -> None:
    meeting = asyncio.Barrier(2)

    @tool
    async def meet() -> str:
        """Waits for the other one."""
        await meeting.wait()
        return "met"

    job = script("tool=meet:{} tool=meet:{} tokens=1")
    assert await stage.answer(stage.agent([meet]), job) is Outcome.DONE
    assert await stage.state(job) == "complete"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("tool=broken:{}", "no such table"),
        ('tool=weather:{"town":"Oslo"}', "The arguments are invalid: "),
        ("tool=unheard:{}", "There is no tool 'unheard'."),
    ],
)
async def test_an_error_goes_to_the_model_and_the_reply_goes_on(
    stage: AgentStage, words: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = script(f"{words} echo")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent(show_tools="output"), job) is Outcome.DONE
        await ears.all()
    assert error in "".join(ears.tokens)
    (finished,) = data_of(ears, "tool.finished")
    assert not finished["ok"]
    assert error in finished["error"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_what_is_hidden_is_neither_published_nor_in_the_log(stage: AgentStage) -> None:
    secret = tool(show="nothing")
    name_only = tool(show="name")

    @secret
    async def lookup(key: str) -> str:
        """Look something up."""
        return f"hush {key}"

    @name_only
    async def note(text: str) -> str:
        """Note something."""
        return f"noted {text}"

    job = script('reason=3 tool=lookup:{"key":"pin"} tool=note:{"text":"mystery"} tokens=1')
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent([lookup, note]), job) is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    assert "reasoning.received" not in names(ears)
    assert [data["name"] for data in data_of(ears, "tool.called")] == ["note"]
    everything = repr(await stage.redis.xrange(keys(job)[1])) + repr(ears.envelopes)
    for word in ("pin", "hush", "mystery", "noted", "lookup"):
        assert word not in everything, word
    assert not await stage.redis.exists(wire.steps_key(job.app_id, job.channel, job.message_id))


async def test_reasoning_is_shown_if_the_agent_says_so(stage: AgentStage) -> None:
    job = script("reason=2 tokens=1")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(stage.agent(show_reasoning=True), job)
        await ears.all()
    assert [data["delta"] for data in data_of(ears, "reasoning.received")] == ["r0 ", "r1 "]
    offsets_are_whole(ears)


async def test_inputs_are_streamed_if_the_agent_says_so(stage: AgentStage) -> None:
    job = script('tool=weather:{"city":"Oslo"} tokens=1')
    async with Ears(stage.redis, job) as ears:
        await stage.answer(stage.agent(stream_inputs=True), job)
        await ears.all()
    deltas = [data["delta"] for data in data_of(ears, "tool.input_received")]
    assert msgspec.json.decode("".join(deltas)) == {"city": "Oslo"}
    assert names(ears)[1:3] == ["tool.started", "tool.input_received"]


async def test_sources_that_a_tool_names_follow_its_result(stage: AgentStage) -> None:
    @tool
    async def search(call: Call) -> list[str]:
        """Search."""
        call.cite(url="https://example.com/a", title="A", text="words")
        return ["A"]

    job = script("tool=search:{} tokens=1 cite=https://example.com/b")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(stage.agent([search]), job)
        await ears.all()
    assert [data["url"] for data in data_of(ears, "citation.received")] == [
        *("https://example.com/a", "https://example.com/b")
    ]
    assert names(ears)[3:5] == ["tool.finished", "citation.received"]


async def test_a_paused_turn_goes_on(stage: AgentStage) -> None:
    job = script("tokens=1 pause tokens=1")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(stage.agent(), job)
        await ears.all()
    assert len(ears.tokens) == 2
    assert ears.ends == ["stream.completed"]


async def test_at_the_bound_of_steps_the_reply_ends_with_what_it_has(stage: AgentStage) -> None:
    job = script('tokens=1 tool=weather:{"city":"a"} tokens=1 tool=weather:{"city":"b"} tokens=1')
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent(max_steps=2), job) is Outcome.DONE
        await ears.all()
    (end,) = data_of(ears, "stream.completed")
    assert (end["stopReason"], end["totalTokens"]) == ("max_steps", 2)
    assert len(stage.world.calls) == 2


@pytest.mark.parametrize("stop_reason", ["refusal", "max_tokens", "model_context_window_exceeded"])
async def test_calls_of_a_step_that_was_cut_off_are_not_made(stage: AgentStage, stop_reason: str) -> None:
    puppet = Puppet(
        STARTED,
        base.Text("Let me see. "),
        base.ToolCall("c1", "weather", '{"city":"Oslo"}'),
        base.Final(stop_reason, Usage(), []),
    )
    job = make_job()
    async with Ears(stage.redis, job) as ears:
        runner = stage.runner(stage.agent())
        model = replace(runner.model, provider=puppet)
        assert await replace(runner, model=model).run(job, Control()) is Outcome.DONE
        await ears.all()
    assert not stage.world.calls
    assert "tool.called" not in names(ears)
    assert ears.ends == ["stream.failed" if stop_reason == "refusal" else "stream.completed"]


@pytest.mark.parametrize("bound", ["max_tokens", "max_steps"])
async def test_a_reply_that_reaches_a_bound_without_text_says_which(stage: AgentStage, bound: str) -> None:
    words = 'tool=weather:{"city":"a"} tool=weather:{"city":"b"} tokens=1'
    puppet = Puppet(STARTED, base.Final("max_tokens", Usage(), []))
    runner = stage.runner(stage.agent(max_steps=1))
    if bound == "max_tokens":
        runner = replace(runner, model=replace(runner.model, provider=puppet))
    job = script(words)
    async with Ears(stage.redis, job) as ears:
        await runner.run(job, Control())
        await ears.all()
    assert data_of(ears, "stream.failed")[0]["code"] == bound


async def test_a_cancel_stops_a_tool_at_once(stage: AgentStage) -> None:
    job, control = script("tokens=1 tool=slow:{} tokens=1"), Control()
    task = asyncio.create_task(stage.answer(stage.agent(), job, control))
    await stage.world.started.wait()
    control.stop(StopReason.CANCELLED)
    assert await task is Outcome.DONE
    assert await stage.state(job) == "cancelled"


# --- what is left when a worker dies


async def test_a_finished_tool_is_not_called_again_by_the_next_worker(stage: AgentStage) -> None:
    """The second tool of the step hangs when the worker dies; by default the model is told so."""
    job = script('tokens=1 tool=weather:{"city":"Oslo"} tool=slow:{} echo tokens=1')
    async with Ears(stage.redis, job) as ears:
        first = asyncio.create_task(stage.answer(stage.agent(show_tools="output"), job))
        await ears.until("tool.finished")
        first.cancel()
        await asyncio.wait({first})
        assert await stage.answer(stage.agent(show_tools="output"), job, ticket="2") is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    assert [name for name, _ in stage.world.calls] == ["weather", "slow"]
    results = data_of(ears, "tool.finished")
    assert [one["ok"] for one in results] == [True, False]
    assert "interrupted" in results[1]["error"]
    assert ears.ends == ["stream.completed"]


async def test_an_interrupted_tool_runs_again_with_the_same_id_if_it_says_so(stage: AgentStage) -> None:
    @tool(on_interrupted="retry")
    async def slow(call: Call) -> str:
        """Takes its time."""
        stage.world.calls.append(("slow", call.id))
        stage.world.started.set()
        await stage.world.go_on.wait()
        return "done"

    job = script("tool=slow:{} echo")
    first = asyncio.create_task(stage.answer(stage.agent([slow]), job))
    await stage.world.started.wait()
    first.cancel()
    await asyncio.wait({first})
    stage.world.go_on.set()
    async with Ears(stage.redis, job) as ears:
        await stage.answer(stage.agent([slow]), job, ticket="2")
        await ears.all()
    assert len(stage.world.calls) == 2
    assert len(set(stage.world.calls)) == 1
    assert "done" in "".join(ears.tokens)


class Killed(Exception):  # noqa: N818 - what happens to the worker
    """The worker dies here."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(14))
async def test_wherever_a_worker_dies_the_reply_goes_on_and_nothing_is_twice(
    stage: AgentStage, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    """Dies at the n-th write to the log, before or after Redis has it; the next worker finishes the reply."""
    writes, append = 0, MessageLog.append

    async def dying(self: MessageLog, *arguments: Any) -> bool:
        nonlocal writes
        writes += 1
        if writes == at + 1 and not after:
            raise asyncio.CancelledError
        cancel = await append(self, *arguments)
        if writes == at + 1:
            raise asyncio.CancelledError
        return cancel

    monkeypatch.setattr(MessageLog, "append", dying)
    words = 'reason=2 tokens=3 tool=weather:{"city":"Oslo"} tool=pay:{"amount":5} reason=2 tokens=2 echo'
    job = script(words)
    agent = stage.agent(stage.world.tools(on_interrupted="retry"), show_reasoning=True, show_tools="output")
    async with Ears(stage.redis, job) as ears:
        outcome = None
        try:
            outcome = await stage.answer(agent, job)
        except asyncio.CancelledError:
            outcome = await stage.answer(agent, job, ticket="2")
        assert outcome is Outcome.DONE
        await ears.all()
    offsets_are_whole(ears)
    text = "".join(ears.tokens)
    assert text.startswith("w0 w1 w2 w3 w4 ")
    assert "paid 5" in text
    assert ears.ends == ["stream.completed"]
    finished = [data["call"] for data in data_of(ears, "tool.finished")]
    assert len(finished) == len(set(finished)) == 2
    assert len({call for name, call in stage.world.calls if name == "pay"}) == 1
    void = {
        offset for data in data_of(ears, "parts.retracted") for offset in range(data["from"], data["offset"])
    }
    reasoning = [data["delta"] for data in data_of(ears, "reasoning.received") if data["offset"] not in void]
    assert reasoning in (["r0 ", "r1 ", "r2 ", "r3 "], ["r0 ", "r1 ", "r0 ", "r1 ", "r2 ", "r3 "]), reasoning


async def test_a_reply_that_the_model_has_ended_is_not_asked_for_again(
    stage: AgentStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = MessageLog.append

    async def undecided(self: MessageLog, entries: Any, beside: Beside = NOTHING) -> bool:
        return await append(self, entries, beside._replace(decision=b""))

    async def dying(_self: MessageLog, _decision: bytes) -> None:
        raise asyncio.CancelledError

    job, agent = script('tool=weather:{"city":"a"} tokens=2'), stage.agent()
    with monkeypatch.context() as patched:
        patched.setattr(MessageLog, "append", undecided)
        patched.setattr(MessageLog, "decide", dying)
        with pytest.raises(asyncio.CancelledError):
            await stage.answer(agent, job)
    asked = stage.counters.attempts
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(agent, job, ticket="2") is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.completed"]
    assert not ears.tokens
    (end,) = data_of(ears, "stream.completed")
    assert end["totalTokens"] == 2
    assert end["stopReason"] == "end_turn"
    assert stage.counters.attempts == asked + 1, "the writer began, but asked nothing"


async def test_the_plain_model_does_not_go_on_with_an_agents_reply(stage: AgentStage) -> None:
    """It would leave the call that waits without an answer."""
    agent = stage.agent(stage.world.tools(needs_approval=True))
    job = script(PAY)
    await stage.decide(job, await parked(stage, agent, job), approve=True)
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(None, job, ticket="2") is Outcome.DONE
        await ears.all()
    (failed,) = data_of(ears, "stream.failed")
    assert failed["code"] == "unknown_agent"
    assert not stage.world.effects


# --- approvals


async def parked(stage: AgentStage, agent: Agent, job: Job) -> str:
    """Run it until it waits. Answers the call."""
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(agent, job) is Outcome.WAITING
        await ears.all()
    (asked,) = data_of(ears, "tool.approval_requested")
    assert asked["input"] == {"amount": 5}
    assert asked["expiresAt"] > time.time()
    assert await stage.state(job) == "waiting"
    call: str = asked["call"]
    return call


PAY = 'tokens=1 tool=pay:{"amount":5} echo'


@pytest.fixture
def careful(stage: AgentStage) -> Agent:
    return stage.agent(stage.world.tools(needs_approval=True), show_tools="output")


async def test_an_approved_call_is_made_when_the_job_comes_back(stage: AgentStage, careful: Agent) -> None:
    job = script(PAY)
    call = await parked(stage, careful, job)
    assert not stage.world.effects
    name = wire.parked_name(job.app_id, job.channel, job.message_id)
    assert await stage.redis.hget(wire.parked_key(QUEUE), name) == b"{}"
    await stage.decide(job, call, approve=True, note="fine")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(careful, job, ticket="2", continues=False) is Outcome.DONE
        await ears.all()
    assert stage.world.effects == {call: 1}
    (decided,) = data_of(ears, "tool.approval_decided")
    assert (decided["approve"], decided["note"]) == (True, "fine")
    assert "paid 5" in "".join(data["token"] for data in data_of(ears, "token.received"))
    assert data_of(ears, "stream.started")[0]["attempt"] == 1, "to wait is no try"


async def test_a_refused_call_is_not_made_and_the_model_is_told(stage: AgentStage, careful: Agent) -> None:
    job = script(PAY)
    await stage.decide(job, await parked(stage, careful, job), approve=False, note="too much")
    async with Ears(stage.redis, job) as ears:
        await stage.answer(careful, job, ticket="2")
        await ears.all()
    assert not stage.world.effects
    (result,) = data_of(ears, "tool.finished")
    assert result["denied"]
    said = "".join(data["token"] for data in data_of(ears, "token.received"))
    assert "the user refused the call: too much" in said


async def test_a_call_that_nobody_approves_in_time_is_refused(stage: AgentStage) -> None:
    agent = stage.agent(stage.world.tools(needs_approval=True, approval_seconds=1))
    job = script(PAY)
    await parked(stage, agent, job)
    deadline = time.time() + 2
    await until(lambda: time.time() >= deadline, WAIT)
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(agent, job, ticket="2") is Outcome.DONE
        await ears.all()
    (decided,) = data_of(ears, "tool.approval_decided")
    assert decided["expired"]
    assert not stage.world.effects


async def test_a_reply_that_comes_back_undecided_waits_on(stage: AgentStage, careful: Agent) -> None:
    job = script(PAY)
    await parked(stage, careful, job)
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(careful, job, ticket="2") is Outcome.WAITING
        await ears.all()
    assert names(ears) == []


async def test_calls_that_need_no_approval_do_not_wait_for_those_that_do(
    stage: AgentStage, careful: Agent
) -> None:
    job = script('tool=pay:{"amount":5} tool=weather:{"city":"Oslo"} echo')
    call = await parked(stage, careful, job)
    assert [name for name, _ in stage.world.calls] == ["weather"]
    await stage.decide(job, call, approve=True)
    assert await stage.answer(careful, job, ticket="2") is Outcome.DONE
    assert [name for name, _ in stage.world.calls] == ["weather", "pay"]


async def test_calls_beyond_the_bound_are_neither_made_nor_asked_for(
    stage: AgentStage, careful: Agent
) -> None:
    """And a reply does not wait for them for ever."""
    job = script('tool=pay:{"amount":5} ' * (TOOL_MAX_CALLS + 1) + "tokens=1")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(careful, job) is Outcome.WAITING
        await ears.all()
        asked = [data["call"] for data in data_of(ears, "tool.approval_requested")]
        assert len(asked) == TOOL_MAX_CALLS
        for call in asked:
            await stage.decide(job, call, approve=True)
        assert await stage.answer(careful, job, ticket="2") is Outcome.DONE
        await ears.all()
    assert stage.world.effects.total() == TOOL_MAX_CALLS
    key = wire.approvals_key(job.app_id, job.channel, job.message_id)
    assert not await stage.redis.exists(key)


async def test_a_decision_that_comes_while_other_calls_run_needs_no_parking(
    stage: AgentStage, careful: Agent
) -> None:
    job = script('tool=pay:{"amount":5} tool=slow:{} echo')
    async with Ears(stage.redis, job) as ears:
        task = asyncio.create_task(stage.answer(careful, job))
        await ears.until("tool.approval_requested")
        await stage.decide(job, data_of(ears, "tool.approval_requested")[0]["call"], approve=True)
        stage.world.go_on.set()
        assert await task is Outcome.DONE
    assert stage.world.effects.total() == 1


async def test_nothing_is_written_under_a_claim_that_has_parked(stage: AgentStage, careful: Agent) -> None:
    job = script(PAY)
    await parked(stage, careful, job)
    (message,) = [stage.runner(careful).messages.open(job, "x")]
    claim = (await stage.redis.hget(keys(job)[0], "claim") or b"").decode()
    assert claim.startswith("parked ")
    assert message.next == 0


class Dying(ParkedJob):
    """Sets the job aside, and then its worker is gone."""

    async def begin(self, deadline_ms: int) -> None:
        await super().begin(deadline_ms)
        raise asyncio.CancelledError


def queue_of(stage: AgentStage) -> JobQueue:
    named: Any = stage.redis
    return JobQueue(named, named, queue=QUEUE, consumer="c", lease=30)


async def dies_while_it_parks(stage: AgentStage, agent: Agent, job: Job) -> None:
    """And the call that the reply was to wait for is approved then."""
    name = wire.parked_name(job.app_id, job.channel, job.message_id)
    dying = Dying(stage.redis, QUEUE, name, b"{}")  # type: ignore[arg-type]
    async with Ears(stage.redis, job) as ears:
        with pytest.raises(asyncio.CancelledError):
            await stage.runner(agent).run(job, Control(), "1", dying)
        await ears.all()
    (asked,) = data_of(ears, "tool.approval_requested")
    await stage.decide(job, asked["call"], approve=True)


async def test_a_job_that_a_dead_worker_has_set_aside_does_not_stay_there(
    stage: AgentStage, careful: Agent
) -> None:
    job = script(PAY)
    await dies_while_it_parks(stage, careful, job)
    assert await stage.redis.exists(wire.parked_key(QUEUE))
    assert await stage.answer(careful, job, ticket="2") is Outcome.DONE
    assert stage.world.effects.total() == 1
    assert not await stage.redis.exists(wire.parked_key(QUEUE), wire.waiting_key(QUEUE))


@pytest.mark.parametrize("expired", [False, True])
async def test_a_reply_that_has_ended_is_not_queued_again_at_the_deadline(
    stage: AgentStage, careful: Agent, expired: bool
) -> None:
    job, queue = script(PAY), queue_of(stage)
    await dies_while_it_parks(stage, careful, job)
    assert await stage.answer(careful, job, ticket="2") is Outcome.DONE
    await stage.parking(job).begin(1)  # by a worker that was stopped before it did this
    if expired:
        await stage.redis.delete(keys(job)[0])
    assert await queue.resume_due(2) == 0
    assert not await stage.redis.exists(wire.jobs_key(QUEUE), wire.parked_key(QUEUE), wire.waiting_key(QUEUE))


async def test_a_reply_that_a_worker_has_is_not_queued_again_at_the_deadline(
    stage: AgentStage, careful: Agent
) -> None:
    job, queue = script(PAY), queue_of(stage)
    await dies_while_it_parks(stage, careful, job)
    assert await stage.state(job) == "streaming"
    late = int(time.time() * 1000) + 10_000_000_000
    assert await queue.resume_due(late) == 0
    assert not await stage.redis.exists(wire.jobs_key(QUEUE))
    await stage.redis.hset(keys(job)[0], "state", "waiting")  # it was just being parked
    assert await queue.resume_due(late) == 0, "it is looked at again, but not at once"
    assert await queue.resume_due(late + WAITING_POSTPONE_MS) == 1
    assert await stage.redis.xlen(wire.jobs_key(QUEUE)) == 1


async def test_another_program_can_cancel_a_reply_that_waits(stage: AgentStage, careful: Agent) -> None:
    """As docs/jobs.md says."""
    job = script(PAY)
    call = await parked(stage, careful, job)
    await stage.redis.hset("legato:msg:{1:private-ai-chat.7}:m1", "cancel", "1")
    await stage.redis.execute_command("ZADD", "legato:waiting:{q}", "XX", "0", "1:private-ai-chat.7:m1")
    assert await queue_of(stage).resume_due(int(time.time() * 1000)) == 1
    await stage.decide(job, call, approve=True)
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(careful, job, ticket="2") is Outcome.DONE
        await ears.all()
    assert ears.ends == ["stream.cancelled"]
    assert not stage.world.effects


@pytest.mark.parametrize("call", ["a/b", "ä", "a b", "", "x" * 129])
async def test_a_call_that_nobody_could_name_does_not_wait_for_an_approval(
    stage: AgentStage, careful: Agent, call: str
) -> None:
    puppet = Puppet(
        *(STARTED, base.ToolCall(call, "pay", '{"amount":5}'), base.Final("tool_use", Usage(), [])),
        *(STARTED, base.Text("Well."), END),
    )
    job = make_job()
    assert await stage.answer(careful, job, provider=puppet) is Outcome.DONE
    assert await stage.state(job) == "complete"
    assert not stage.world.calls
    (output,) = puppet.asked[-1].steps[0].outputs
    assert "needs the approval of a person, who was not asked" in output.text


async def test_an_approval_is_not_for_another_call_with_the_same_id(
    stage: AgentStage, careful: Agent
) -> None:
    pay = base.ToolCall("c1", "pay", '{"amount":5}')
    dear = base.ToolCall("c1", "pay", '{"amount":5000}')
    end = base.Final("tool_use", Usage(), [])
    job = make_job()
    assert await stage.answer(careful, job, provider=Puppet(STARTED, pay, end)) is Outcome.WAITING
    await stage.decide(job, "c1", approve=True)
    puppet = Puppet(STARTED, base.Text("And "), dear, end)
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(careful, job, ticket="2", provider=puppet) is Outcome.DONE
        await ears.all()
    assert stage.world.effects == {"c1": 1}
    (failed,) = data_of(ears, "stream.failed")
    assert failed["code"] == "provider_error"
    assert failed["partial"] == bool(ears.tokens)


async def test_two_calls_of_one_step_with_the_same_id_are_not_made(stage: AgentStage) -> None:
    look = base.ToolCall("c1", "weather", '{"city":"Oslo"}')
    puppet = Puppet(STARTED, look, look, base.Final("tool_use", Usage(), []))
    job = make_job()
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent(), job, provider=puppet) is Outcome.DONE
        await ears.all()
    assert not stage.world.calls
    assert [data["code"] for data in data_of(ears, "stream.failed")] == ["provider_error"]


async def test_a_worker_that_dies_while_it_makes_an_approved_call_leaves_it_to_the_rule(
    stage: AgentStage,
) -> None:
    started = asyncio.Event()

    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        stage.world.effects["pay"] += amount
        started.set()
        await asyncio.Event().wait()
        return "never"

    agent, job = stage.agent([pay], show_tools="output"), script(PAY)
    await stage.decide(job, await parked(stage, agent, job), approve=True)
    second = asyncio.create_task(stage.answer(agent, job, ticket="2"))
    await started.wait()
    second.cancel()
    await asyncio.wait({second})
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(agent, job, ticket="3") is Outcome.DONE
        await ears.all()
    assert stage.world.effects == {"pay": 5}
    (result,) = data_of(ears, "tool.finished")
    assert "interrupted" in result["error"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"text":"' + "x" * 65_536 + '"}', "needs the approval of a person, who was not asked"),
        ("nonsense", "The arguments are invalid: "),
        ("7" * 65_537, "The arguments are invalid: "),
        ('{"text":7}', "The arguments are invalid: "),
    ],
)
async def test_nobody_is_asked_for_a_call_that_cannot_be_shown_or_made(
    stage: AgentStage, given: str, said: str
) -> None:
    @tool(needs_approval=True)
    async def pay(text: str) -> str:
        """Pay."""
        stage.world.effects["pay"] += 1
        return text

    model = Puppet(
        *(base.RequestAccepted("m"), base.ToolCall("c", "pay", given), base.Final("tool_use", Usage())),
        *(base.RequestAccepted("m"), base.Text("done"), END),
    )
    job = make_job()
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent([pay]), job, provider=model) is Outcome.DONE
        await ears.all()
    assert not stage.world.effects
    assert "tool.approval_requested" not in names(ears)
    (output,) = model.asked[1].steps[0].outputs
    assert output.failed
    assert said in output.text


async def test_a_lone_surrogate_in_an_input_is_shown_replaced(stage: AgentStage) -> None:
    job = script(r'tool=weather:{"city":"\ud800"} tokens=1')
    async with Ears(stage.redis, job) as ears:
        await stage.answer(stage.agent(), job)
        await ears.all()
    assert data_of(ears, "tool.called")[0]["input"] == {"city": "\ufffd"}


async def test_an_open_call_that_needs_an_approval_by_new_code_only_is_not_made(stage: AgentStage) -> None:
    """The first worker dies with the call begun; the second has a version that wants an approval."""
    job = script("tool=slow:{} echo")
    first = asyncio.create_task(stage.answer(stage.agent(), job))
    await stage.world.started.wait()
    first.cancel()
    await asyncio.wait({first})
    calls: list[int] = []

    @tool(needs_approval=True, on_interrupted="retry")
    async def slow() -> str:
        """Has an effect now."""
        calls.append(1)
        return "done"

    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent([slow]), job, ticket="2") is Outcome.DONE
        await ears.all()
    assert not calls
    assert "who was not asked" in "".join(data["token"] for data in data_of(ears, "token.received"))


async def test_a_fault_of_the_function_for_the_system_prompt_fails_the_reply_alone(
    stage: AgentStage, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_job: Job) -> str:
        raise SystemExit(3)

    job = script("tokens=1")
    async with Ears(stage.redis, job) as ears:
        assert await stage.answer(stage.agent(system=broken), job) is Outcome.DONE
        await ears.all()
    assert data_of(ears, "stream.failed")[0]["code"] == "internal"
    assert "system: the function raised SystemExit" in caplog.text
