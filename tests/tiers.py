"""Sorts the tests: which belong to `make unit`, which start first, and how much `make proof` does more.

A test is a *unit* test unless it starts a program or takes seconds. It may use sockets of its own process on
127.0.0.1. A unit test that starts a program fails, wherever it runs: so the table below cannot go stale.
"""

from __future__ import annotations

import asyncio
import multiprocessing.process
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

PROOF: Final = "LEGATO_PROOF" in os.environ
"""Set by `make proof`."""

PROOF_TIMEOUT: Final = 7200
"""Seconds for any test of it."""

SERVER_FIXTURES: Final = frozenset(
    {
        "_valkey",
        "_redis",
        "redis_server",
        "_redis_cluster",
        "_valkey_cluster",
        "postgresql",
        "mysql",
        "legato",
    }
)
"""What takes one of these, directly or not, is not a unit test."""

SERVER_PARAMS: Final = frozenset({"valkey", "redis", "hash", "cluster", "sentinel", "postgresql", "mysql"})
"""Parameters of tests and fixtures that stand for a server."""

PROGRAMS: Final = (
    "tests/benchmarks/chaos/test_modules.py",
    "tests/benchmarks/chaos/test_runs.py",
    "tests/benchmarks/conformance/test_command.py",
    "tests/benchmarks/conformance/test_legato.py",
    "tests/benchmarks/test_model_streams.py::test_short_run_is_complete_and_written_down",
    "tests/benchmarks/test_versus.py::test_baseline_that_does_not_compile_is_told",
    "tests/benchmarks/test_versus.py::test_loop_delay_is_read_around_the_flushes",
    "tests/broadcaster/api/test_chat.py::test_the_log_tells_a_refusal_of_redis_from_no_answer",
    "tests/broadcaster/api/test_chat.py::test_messages_refused_by_a_full_redis_do_not_count",
    "tests/broadcaster/api/test_chat.py::test_with_redis_gone_chat_is_unavailable_and_comes_back",
    "tests/broadcaster/api/test_http_api.py::test_an_unreachable_redis_is_a_503",
    "tests/broadcaster/apps/test_app_table.py::test_a_broadcaster_without_a_table_does_without_sqlalchemy",
    "tests/broadcaster/bus/",
    "tests/broadcaster/clients/test_drain.py::test_a_redis_that_hangs_is_waited_for_once",
    "tests/broadcaster/clients/test_admission.py::test_without_redis_clients_under_a_quota_are_refused",
    "tests/broadcaster/registry/test_connection_counts.py",
    "tests/broadcaster/registry/test_lease_thread.py",
    "tests/broadcaster/registry/test_registry.py",
    "tests/broadcaster/test_cluster.py",
    "tests/broadcaster/test_fan_out_cost.py::test_events_of_one_request_reach_a_receiver_by_one_system_call",
    "tests/broadcaster/test_least_rights.py",
    "tests/broadcaster/test_redis_faults.py",
    "tests/broadcaster/test_rolling_restart.py",
    "tests/broadcaster/test_server.py",
    "tests/broadcaster/transport/test_file_limit.py",
    "tests/broadcaster/transport/test_tls.py",
    "tests/broadcaster/webhooks/test_told_once.py",
    "tests/broadcaster/webhooks/test_webhooks.py::test_without_a_webhook_no_http_client_is_loaded",
    "tests/deploy/test_children.py",
    "tests/deploy/test_cli.py",
    "tests/deploy/test_env_file.py",
    "tests/deploy/test_loaded.py",
    "tests/deploy/test_logs.py",
    "tests/deploy/test_processes.py",
    "tests/deploy/test_supervisor.py",
    "tests/deploy/test_systemd.py",
    "tests/deploy/test_tools.py",
    "tests/deploy/test_up.py",
    "tests/deploy/test_valkey.py",
    "tests/deploy/test_watch.py",
    "tests/deploy/test_wheel.py",
    "tests/e2e/",
    "tests/protocol/redis/test_advice.py",
    "tests/protocol/redis/test_pipeline.py",
    "tests/worker/jobs/test_consumer.py::test_redis_that_comes_back_empty_is_served_again",
    "tests/worker/store/test_revisions.py::test_database_that_is_up_to_date_needs_no_alembic",
)
"""Files, classes and tests that start programs without such a fixture: prefixes of node ids."""

SECONDS: Final = {
    "tests/benchmarks/chaos/test_audit.py": 0.5,
    "tests/benchmarks/chaos/test_runs.py": 30,
    "tests/benchmarks/chaos/test_series.py::test_two_real_seeds_at_once_make_one_report": 20,
    "tests/benchmarks/conformance/test_command.py": 1,
    "tests/benchmarks/conformance/test_faults.py": 2.5,
    "tests/benchmarks/conformance/test_faults.py::test_a_right_server_passes_every_case": 20,
    "tests/benchmarks/conformance/test_legato.py": 14,
    "tests/benchmarks/test_hostile.py": 5,
    "tests/benchmarks/test_hostile.py::test_every_attack_is_borne": 30,
    "tests/benchmarks/test_load.py": 5,
    "tests/benchmarks/test_load.py::test_every_scenario_works_and_is_written_down": 17,
    "tests/benchmarks/test_tokens.py": 3,
    "tests/benchmarks/test_versus.py::test_quick_run_measures_everything_but_soketi": 20,
    "tests/broadcaster/bus/test_bus_cluster.py": 4,
    "tests/broadcaster/channels/test_passes.py::TestHubMachine": 5,
    "tests/broadcaster/clients/test_drain.py": 0.5,
    "tests/broadcaster/observability/test_metrics_server.py::test_idle_connections_keep_no_scraper_out": 5,
    "tests/broadcaster/registry/test_registry.py": 0.5,
    "tests/broadcaster/test_cluster.py": 25,
    "tests/broadcaster/test_least_rights.py": 4,
    "tests/broadcaster/test_redis_faults.py": 2,
    "tests/broadcaster/test_rolling_restart.py": 8,
    "tests/broadcaster/test_server.py": 1,
    "tests/broadcaster/transport/test_tls.py": 2.5,
    "tests/broadcaster/webhooks/test_told_once.py": 1,
    "tests/deploy/test_children.py": 1,
    "tests/deploy/test_processes.py": 4,
    "tests/deploy/test_supervisor.py": 12,
    "tests/deploy/test_up.py": 1,
    "tests/deploy/test_wheel.py": 2.5,
    "tests/e2e/": 4,
    "tests/e2e/test_broadcaster.py::test_stock_clients": 4,
    "tests/e2e/test_broadcaster.py::test_stock_clients_in_chromium": 15,
    "tests/e2e/test_clients.py": 30,
    "tests/e2e/test_fallback.py": 20,
    "tests/e2e/test_healing.py": 15,
    "tests/e2e/test_redis.py": 8,
    "tests/test_benchmarks.py": 4,
    "tests/worker/replies/test_store_runner.py": 2,
    "tests/worker/store/test_revisions.py": 1,
    "tests/worker/store/test_store.py::test_processes_that_start_at_once_on_one_new_database_all_succeed": 10,
    "tests/worker/test_cli.py": 8,
}
"""Prefixes of the node ids of long tests, with roughly what each takes on a free machine under coverage."""

SLOW_SECONDS: Final = 2.0
"""Tests in :data:`SECONDS` that take as long are not unit tests."""


def amount(short: int, long: int) -> int:
    """How many examples, seeds or messages: ``short`` in `make test`, ``long`` in `make proof`."""
    return long if PROOF else short


def seconds(node_id: str) -> float:
    """The entry of :data:`SECONDS` that names most of the id; 0 if there is none."""
    matching = [prefix for prefix in SECONDS if node_id.startswith(prefix)]
    return SECONDS[max(matching, key=len)] if matching else 0.0


def is_unit(node_id: str, fixtures: Iterable[str], params: Iterable[Any]) -> bool:
    """Whether a test needs nothing but this process and little time."""
    return not (
        SERVER_FIXTURES.intersection(fixtures)
        or SERVER_PARAMS.intersection(param for param in params if isinstance(param, str))
        or node_id.startswith(PROGRAMS)
        or seconds(node_id) >= SLOW_SECONDS
    )


def group(item: pytest.Item) -> str | None:
    """Tests of a file that share what is set up once for the file go to one process, one after the other."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.values() if info else ()
    shared = sorted(
        each[-1].argname for each in definitions if each and each[-1].scope in ("module", "class")
    )
    if not shared:
        return None
    spec = getattr(item, "callspec", None)
    params = [str(spec.params[name]) for name in shared if spec and name in spec.params]
    return " ".join([item.nodeid.partition("::")[0], *shared, *params])


class Guard:
    """Refuses to start a program while a unit test runs."""

    running: str | None = None

    def install(self) -> None:
        for owner, name in (
            (subprocess.Popen, "__init__"),
            (asyncio, "create_subprocess_exec"),
            (asyncio, "create_subprocess_shell"),
            (multiprocessing.process.BaseProcess, "start"),
        ):
            setattr(owner, name, self._guarded(getattr(owner, name)))

    def _guarded(self, start: Any) -> Any:
        def refuse_or_start(*args: Any, **options: Any) -> Any:
            if self.running is not None:
                raise AssertionError(
                    f"{self.running} starts a program: it is not a unit test, name it in tests/tiers.py"
                )
            return start(*args, **options)

        return refuse_or_start
