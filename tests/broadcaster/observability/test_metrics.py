import asyncio
import socket
import urllib.request

from legato.broadcaster.composition import running
from legato.broadcaster.config import Metrics
from legato.broadcaster.observability import metrics_server
from tests.broadcaster.api.test_http_api import EVENTS, post
from tests.broadcaster.conftest import client, dial, local_settings
from tests.waiting import until


async def scrape(port: int) -> dict[str, float]:
    def work() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            return response.read().decode()

    lines = (await asyncio.to_thread(work)).splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


async def test_the_metrics_count_events():
    async with running(local_settings(metrics=Metrics(port=0))) as server:
        async with client(server.port) as ann, dial(server.port, "/app/nope") as refused:
            await refused.receive()
            await ann.subscribe("a")
            for _ in range(3):
                await post(server.port, EVENTS, {"name": "e", "data": "x", "channel": "a"})
                await ann.receive()
            figures = await scrape(server.metrics_port)
            expected = {
                'legato_connections{app="1"}': 1,
                "legato_connections_accepted_total": 1,
                'legato_connections_refused_total{code="4001"}': 1,
                "legato_slow_connections": 0,
                "legato_slow_connections_closed_total": 0,
                "legato_merged_tokens_total": 0,
                "legato_channels": 1,
                "legato_messages_total": 3,
                "legato_deliveries_total": 3,
                "legato_writes_total": 3,
                "legato_subscriptions": 1,
                "legato_subscriptions_refused_total": 0,
                "legato_bus_gaps_total": 0,
                "legato_bus_gap_channels_total": 0,
                "legato_healed_tokens_total": 0,
                "legato_healed_endings_total": 0,
                "legato_heals_failed_total": 0,
                "legato_healed_cached_events_total": 0,
                "legato_healed_rosters_total": 0,
                'legato_http_requests_total{route="events",status="200"}': 3,
                "legato_chat_jobs_total": 0,
                "legato_door_answers": 0,
                "legato_client_events_total": 0,
                "legato_webhooks_sent_total": 0,
                "legato_webhooks_failed_total": 0,
                "legato_webhooks_dropped_total": 0,
                "legato_webhooks_waiting": 0,
            }
            delay = {name for name in figures if name.startswith("legato_loop_delay_seconds")}
            assert {name: figures[name] for name in figures.keys() - delay} == expected
        await until(lambda: server.node.connections.by_app["1"] == 0)
        assert (await scrape(server.metrics_port))["legato_channels"] == 0


async def test_the_delay_of_the_loop_is_a_histogram():
    async with running(local_settings(metrics=Metrics(port=0))) as server:
        probe = server.node.loop_delay
        await until(lambda: sum(probe.counts))
        probe.close()
        probe.counts[:], probe.sum = [1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 4], 9.5
        figures = await scrape(server.metrics_port)
        bounds = ("0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "1", "+Inf")
        name = "legato_loop_delay_seconds"
        buckets = [figures[f'{name}_bucket{{le="{bound}"}}'] for bound in bounds]
        assert buckets == [1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 7]
        assert (figures[f"{name}_count"], figures[f"{name}_sum"]) == (7, 9.5)


async def test_a_metrics_port_that_is_taken_is_waited_for(monkeypatch, caplog):
    """The previous process may have it still, or another program for ever: a server needs no metrics."""
    monkeypatch.setattr(metrics_server, "METRICS_BIND_RETRY_SECONDS", 0.02)
    caplog.set_level("INFO", "legato")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(local_settings(metrics=Metrics(port=port))) as server:
            assert server.metrics_port == 0
            line = f"no metrics: port {port} of 127.0.0.1 is taken; they begin when it is free"
            assert [record.message for record in caplog.records if "metrics" in record.message] == [line]
            taken.close()
            await until(lambda: f"metrics on http://127.0.0.1:{port}/metrics" in caplog.text)
            assert "legato_channels" in await scrape(port)
