"""The worker's counters: what is counted is what is shown, and the port is taken when it is free."""

from __future__ import annotations

import re
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from legato.protocol.settings import Price
from legato.protocol.stream import Usage
from legato.worker import config
from legato.worker.observability import metrics, metrics_server
from legato.worker.observability.counters import Counters, Histogram
from legato.worker.replies.reply import Decision
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PRICES = {"claude": Price(input=3, output=15, cache_read=0.5)}


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def consumer(counters: Counters) -> Any:
    return SimpleNamespace(counters=counters, running=3)


def shown(consumer: Any) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics.ConsumerCollector(consumer, PRICES))
    text = generate_latest(registry).decode()
    return {name: float(value) for name, value in re.findall(r"^(legato\S+) (\S+)$", text, re.MULTILINE)}


def test_ends_failures_use_and_cost(counters: Counters, consumer: Any) -> None:
    used = Usage(input=1_000_000, output=200_000, cache_read=10_000)
    counters.end(Decision("end_turn", used, "claude"))
    counters.end(Decision(None, used, "claude", "failed", "overloaded"))
    counters.end(Decision(None, used, "another", "cancelled"))
    counters.end(Decision(None, None, "claude", "cancelled"))
    found = shown(consumer)
    assert found["legato_worker_replies_running"] == 3
    assert found['legato_worker_replies_total{state="complete"}'] == 1
    assert found['legato_worker_replies_total{state="cancelled"}'] == 2
    assert found['legato_worker_failures_total{code="overloaded"}'] == 1
    assert found['legato_worker_model_tokens_total{kind="input",model="claude"}'] == 2_000_000
    assert found['legato_worker_model_cost_total{model="claude"}'] == pytest.approx(2 * (3 + 3 + 0.005))
    assert not any("cost" in name and "another" in name for name in found)


def test_tool_calls_and_parked_replies(counters: Counters, consumer: Any) -> None:
    counters.tool_calls.update(ok=3, failed=1)
    counters.parked = 2
    found = shown(consumer)
    assert found['legato_worker_tool_calls_total{result="ok"}'] == 3
    assert found['legato_worker_tool_calls_total{result="failed"}'] == 1
    assert found["legato_worker_parked_total"] == 2


def test_histogram_counts_up_to_each_bound(counters: Counters, consumer: Any) -> None:
    for seconds in (0.005, 0.01, 0.02, 400):
        counters.latencies.queue_wait.observe(seconds)
    found = shown(consumer)
    name = "legato_worker_queue_wait_seconds"
    bounds = ("0.01", "0.025", "300", "+Inf")
    assert [found[f'{name}_bucket{{le="{bound}"}}'] for bound in bounds] == [2, 3, 3, 4]
    assert found[f"{name}_count"] == 4
    assert found[f"{name}_sum"] == pytest.approx(400.035)


def test_waiting_rooms_are_measured_by_queue_and_only_where_there_are_some(consumer: Any) -> None:
    assert not any("waiting" in name for name in shown(consumer))
    rooms: Any = [
        SimpleNamespace(queue="a", waiting=5, tenants=2),
        SimpleNamespace(queue="b", waiting=0, tenants=0),
    ]
    registry = CollectorRegistry()
    registry.register(metrics.ConsumerCollector(consumer, PRICES, rooms))
    text = generate_latest(registry).decode()
    assert 'legato_worker_jobs_waiting{queue="a"} 5.0' in text
    assert 'legato_worker_tenants_waiting{queue="a"} 2.0' in text
    assert 'legato_worker_jobs_waiting{queue="b"} 0.0' in text


def test_bounds_are_in_order() -> None:
    for value in vars(Counters()).values():
        if isinstance(value, Histogram):
            assert list(value.bounds) == sorted(set(value.bounds))


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder


async def test_port_is_waited_for(
    consumer: Any, taken: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that makes way has it still. Said once."""
    monkeypatch.setattr(metrics_server, "METRICS_BIND_RETRY_SECONDS", 0.02)
    port = taken.getsockname()[1]
    settings = config.Settings(worker=config.Worker(metrics_port=port))
    stop = metrics.serve(consumer, settings)

    def answers() -> bool:
        try:
            return "legato_worker_replies_running 3" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        except httpx2.HTTPError:
            return False

    try:
        await until(lambda: f"no metrics: port {port}" in caplog.text)
        taken.close()
        await until(answers)
    finally:
        stop()
    assert caplog.text.count("no metrics") == 1
    assert not answers()


async def test_address_that_cannot_be_used_is_said_and_the_worker_goes_on(
    consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config.Settings(worker=config.Worker(metrics_host="192.0.2.1", metrics_port=9))
    stop = metrics.serve(consumer, settings)
    await until(lambda: "no metrics: port 9 of 192.0.2.1" in caplog.text)
    stop()
