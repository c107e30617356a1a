"""Sorts the tests: which belong to `make unit`, which start first, and how much `make proof` does more.

A test is a *unit* test unless it starts a program or takes seconds, alone or with the others of its file. It
may use sockets of its own process on 127.0.0.1. A unit test that starts a program fails, wherever it runs: so
the table below cannot go stale. What `make proof` alone runs is a variant of what `make test` runs, too.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing.process
import os
import subprocess
from collections import Counter
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

ONE_PROCESS: Final = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "redis_cluster": "clusters",
    "valkey_cluster": "clusters",
    "cluster": "clusters",
    "valkey-cluster": "clusters",
}
"""Fixtures and parameters of tests that go to one process, by group: their servers take long to set up."""

ANTHROPIC_SDK: Final = (
    "tests/worker/agents/test_examples.py",
    "tests/worker/providers/test_anthropic.py",
    "tests/worker/providers/test_anthropic_client.py",
    "tests/worker/providers/test_anthropic_tools.py",
    "tests/worker/providers/test_anthropic_transport.py",
    "tests/worker/providers/test_contract.py::test_our_providers_keep_the_contract[anthropic",
    "tests/worker/providers/test_contract_tools.py::test_our_providers_keep_the_contract[anthropic",
    "tests/worker/replies/test_agent_providers.py::test_agent_asks_the_model_until_it_is_done[anthropic",
    "tests/worker/test_cli.py::test_what_cannot_start_says_why_in_one_line[environ4",
    "tests/worker/replies/test_writer.py::test_real_sdk_gets_through_a_429_with_retry_after_and_a_529",
)
"""Tests that use Anthropic's SDK go to one process, since it takes longer to import than all the rest."""

TOGETHER_SECONDS: Final = (
    *(prefix for prefix in ANTHROPIC_SDK if "::" not in prefix),
    "tests/benchmarks/chaos/test_audit.py",
    "tests/broadcaster/auth/test_jwks.py",
    "tests/broadcaster/conversations/",
    "tests/broadcaster/transport/test_fallback.py",
    "tests/broadcaster/transport/test_slow_readers.py",
    "tests/broadcaster/transport/test_floods.py",
    "tests/broadcaster/transport/test_http_limits.py",
    "tests/broadcaster/transport/test_plain.py",
    "tests/broadcaster/transport/test_remembered.py",
    "tests/broadcaster/transport/test_uvicorn.py",
    "tests/broadcaster/webhooks/test_webhooks.py",
    "tests/protocol/redis/test_internals.py",
    "tests/protocol/redis/test_scripts.py",
    "tests/worker/providers/test_anthropic",
    "tests/worker/providers/test_contract",
    "tests/worker/providers/test_openai",
    "tests/worker/replies/test_agent_providers.py",
    "tests/worker/replies/test_writer.py",
    "tests/worker/store/",
)
"""Files with many tests that take long together: those of one thing each, which few changes touch."""

SERVER_PARAMS: Final = frozenset({"valkey", "redis", "hash", "cluster", "sentinel", "postgresql", "mysql"})
"""Parameters of tests and fixtures that stand for a server."""

PROGRAMS: Final = (
    "tests/benchmarks/chaos/test_modules.py",
    "tests/benchmarks/chaos/test_runs.py",
    "tests/benchmarks/conformance/test_command.py",
    "tests/benchmarks/conformance/test_legato.py",
    "tests/benchmarks/test_doors.py::test_both_kinds_of_readers_are_measured",
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
    "tests/deploy/test_laravel.py",
    "tests/deploy/test_loaded.py",
    "tests/deploy/test_logs.py",
    "tests/deploy/test_processes.py",
    "tests/deploy/test_promtool.py",
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
    "tests/worker/test_agent_cli.py",
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
    "tests/benchmarks/test_doors.py::test_both_kinds_of_readers_are_measured": 8,
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
    "tests/deploy/test_proxies.py": 3,
    "tests/deploy/test_supervisor.py": 12,
    "tests/deploy/test_up.py": 1,
    "tests/deploy/test_wheel.py": 2.5,
    "tests/e2e/": 4,
    "tests/e2e/test_broadcaster.py::test_stock_clients": 4,
    "tests/e2e/test_broadcaster.py::test_stock_clients_in_chromium": 15,
    "tests/e2e/test_clients.py": 25,
    "tests/e2e/test_doors.py": 8,
    "tests/e2e/test_doors.py::test_stock_clients_have_all_of_replies_whatever_is_killed": 20,
    "tests/e2e/test_examples.py": 20,
    "tests/e2e/test_fallback.py": 20,
    "tests/e2e/test_healing.py": 15,
    "tests/e2e/test_recovery.py": 25,
    "tests/e2e/test_redis.py": 8,
    "tests/test_benchmarks.py": 4,
    "tests/worker/replies/test_store_runner.py": 2,
    "tests/worker/store/test_revisions.py": 1,
    "tests/worker/store/test_store.py::test_processes_that_start_at_once_on_one_new_database_all_succeed": 10,
    "tests/worker/test_agent_cli.py": 8,
    "tests/worker/test_cli.py": 8,
}
"""Prefixes of the node ids of long tests, with roughly what each takes on a free machine under coverage."""

PROOF_ALONE: Final = (
    # `worker/test_cli.py` wakes a zombie behind the fence, too; here a build without one is caught.
    "tests/benchmarks/chaos/test_runs.py::test_a_zombie_is_harmless_only_behind_the_fence",
    # One run with all faults is made in `test_runs.py`.
    "tests/benchmarks/chaos/test_series.py::test_two_real_seeds_at_once_make_one_report",
    # Legato passes every case in `test_legato.py`: here so does the server that the faults are put into.
    "tests/benchmarks/conformance/test_faults.py::test_a_right_server_passes_every_case",
    "tests/benchmarks/conformance/test_legato.py::test_legato_conforms[redis]",  # two processes have one, too
    "tests/benchmarks/test_hostile.py::test_attacks_over_tls_are_borne",
    "tests/benchmarks/test_hostile.py::test_report_has_what_was_done_and_seen",
    "tests/benchmarks/test_model_streams.py::test_short_run_is_complete_and_written_down[versus]",
    "tests/benchmarks/test_versus.py::test_quick_run_measures_everything_but_soketi",
    "tests/broadcaster/registry/test_lease_thread.py::test_a_node_whose_loop_stands_still_is_not_taken_for_dead[python]",
    "tests/broadcaster/transport/test_floods.py::test_a_flood_is_read_a_slice_at_a_time_and_others_are_served_meanwhile[asyncio",
    "tests/broadcaster/transport/test_floods.py::test_a_peer_that_does_not_read_answers_is_not_read[asyncio",
    "tests/broadcaster/transport/test_floods.py::test_a_peer_that_does_not_read_answers_over_tls_is_not_read[asyncio",
    # One of the two ways to be replaced, and how a process that is stuck ends, are tested in `make test`.
    "tests/deploy/test_supervisor.py::test_processes_that_are_shared_out_evenly_are_replaced_by_age_and_size_and_lose_nothing",
    "tests/deploy/test_supervisor.py::test_a_process_with_a_request_that_never_closes_is_replaced_and_loses_nothing",
    "tests/deploy/test_supervisor.py::test_a_process_that_does_not_end_a_reply_is_killed_and_the_reply_goes_on_elsewhere",
    "tests/deploy/test_processes.py::test_readiness_is_seen_where_only_warnings_are_shown[error]",
    "tests/deploy/test_wheel.py::test_chaos_installs_what_its_readers_need_outside_the_package",
    "tests/deploy/test_wheel.py::test_bench_runs",
    # React's and Vue's hooks are over the Echo that other scenarios test.
    "tests/e2e/test_broadcaster.py::test_stock_clients_in_chromium[hooks-",
    # What clients see is the same with and without Redis.
    "tests/e2e/test_broadcaster.py::test_stock_clients[local-",
    "tests/e2e/test_clients.py::test_stock_echo[redis-server]",
    "tests/e2e/test_redis.py::test_two_installations_chat_on_one_redis_and_neither_hears_the_other[/3-]",
    "tests/e2e/test_redis.py::test_a_cluster_with_tls_and_such_a_user",
    "tests/e2e/test_redis.py::test_sentinels_with_tls_and_a_password_of_their_own",
    "tests/e2e/test_up.py::test_it_ends_within_five_seconds_and_leaves_nothing[SIGTERM]",
    "tests/e2e/test_up.py::test_it_ends_within_five_seconds_and_leaves_nothing[closed terminal]",
    "tests/e2e/test_up.py::test_a_data_directory_may_have_any_name_and_a_level_hides_lines",
    "tests/e2e/test_redis.py::test_two_installations_chat_on_one_redis_and_neither_hears_the_other[/0-shop:]",
    "tests/test_benchmarks.py::test_scaling_counts_what_redis_is_asked[options1",
    "tests/test_benchmarks.py::test_scaling_counts_what_redis_is_asked[options2",
    "tests/test_benchmarks.py::test_scaling_counts_what_redis_is_asked[options3",
    "tests/test_benchmarks.py::test_short_run_is_complete_and_written_down[options0",
    "tests/worker/test_fair_cluster.py::test_no_job_is_lost_or_run_twice_and_no_maximum_exceeded[1]",
    "tests/worker/test_fair_cluster.py::test_no_job_is_lost_or_run_twice_and_no_maximum_exceeded[2]",
    "tests/worker/store/test_store.py::test_processes_that_start_at_once_on_one_new_database_all_succeed[postgresql]",
    "tests/worker/store/test_store.py::test_processes_that_start_at_once_on_one_new_database_all_succeed[mysql]",
)
"""Prefixes of the node ids of tests that `make test` leaves out: each is a variant of one that it runs."""

BOTH_SERVERS: Final = (
    "tests/broadcaster/",
    "tests/deploy/",
    "tests/e2e/",
    "tests/protocol/redis/",
    "tests/worker/jobs/test_fair_queue.py",
    "tests/worker/jobs/test_jobs.py",
    "tests/worker/jobs/test_positions.py",
    "tests/worker/replies/test_token_log.py",
)
"""Tests that `make test` runs with Valkey and with Redis: those of the scripts and commands themselves."""

ON_A_CLUSTER: Final = frozenset(
    {
        "test_append_does_the_rest_in_the_same_step_and_tells_readers_once",
        "test_dead_letters_of_many_queues_come_back",
        "test_finish_makes_room_for_another_message_of_the_user",
        "test_job_is_taken_over_when_its_lease_is_out_and_renewing_it_then_is_refused",
        "test_jobs_that_wait_are_not_taken_over",
        "test_lost_answer_loses_no_job_and_gives_none_twice",
        "test_no_job_is_lost_or_run_twice_and_no_maximum_exceeded",
        "test_positions_are_published_when_they_change",
        "test_scripts_return_after_the_server_forgot_them",
        "test_tenants_take_turns_and_so_do_the_users_of_each",
        "test_titles_are_heard_by_their_users",
        "test_tokens_are_logged_and_published_once_in_order",
        "test_waiting_jobs_are_counted_and_the_oldest_has_its_age",
        "test_workers_are_seen_paused_and_drained",
        "test_zombie_can_write_nothing_at_all",
    }
)
"""Of the tests that are repeated on a Cluster, those of `make test`: scripts of several keys, and shards."""

REPEATED_ON_A_CLUSTER: Final = ("tests/worker/test_cluster.py", "tests/worker/test_fair_cluster.py")

WITH_MYSQL: Final = ("tests/worker/store/test_store.py", "tests/worker/store/test_revisions.py")
"""Tests that `make test` runs with MySQL, too: what is stored, and how its tables come to be."""

SLOW_SECONDS: Final = 2.0
"""Tests in :data:`SECONDS` that take as long are not unit tests."""


HANDED_OUT: Final = 20
"""How many short tests of a file go to one process, in a row."""


def amount(short: int, long: int) -> int:
    """How many examples, seeds or messages: ``short`` in `make test`, ``long`` in `make proof`."""
    return long if PROOF else short


def proof_alone(node_id: str, fixtures: Iterable[str], params: Iterable[Any]) -> bool:
    """Whether `make test` leaves a test out, since it runs one much like it."""
    texts = _texts(params)
    return (
        node_id.startswith(PROOF_ALONE)
        or ("redis" in texts and "redis_server" in fixtures and not node_id.startswith(BOTH_SERVERS))
        or (node_id.startswith(REPEATED_ON_A_CLUSTER) and _function(node_id) not in ON_A_CLUSTER)
        or ("mysql" in texts and "any_database" in fixtures and not node_id.startswith(WITH_MYSQL))
    )


@functools.cache
def seconds(node_id: str) -> float:
    """The entry of :data:`SECONDS` that names most of the id; 0 if there is none."""
    matching = [prefix for prefix in SECONDS if node_id.startswith(prefix)]
    return SECONDS[max(matching, key=len)] if matching else 0.0


def is_unit(node_id: str, fixtures: Iterable[str], params: Iterable[Any]) -> bool:
    """Whether a test needs nothing but this process and little time."""
    return not (
        SERVER_FIXTURES.intersection(fixtures)
        or SERVER_PARAMS.intersection(_texts(params))
        or node_id.startswith((*PROGRAMS, *TOGETHER_SECONDS))
        or seconds(node_id) >= SLOW_SECONDS
    )


def has_no_unit(file: str) -> bool:
    """Whether all tests of a file are named as no unit tests: `make unit` need not import it."""
    prefixes = (prefix for prefix in (*PROGRAMS, *TOGETHER_SECONDS) if "::" not in prefix)
    return file.startswith(tuple(prefixes))


def _function(node_id: str) -> str:
    return node_id.rpartition("::")[2].partition("[")[0]


def _texts(params: Iterable[Any]) -> set[str]:
    return {param for param in params if isinstance(param, str)}


def group(item: pytest.Item) -> str | None:
    """Tests that share what is set up once, for them or for their file, go to one process, in a row."""
    spec = getattr(item, "callspec", None)
    names = {*getattr(item, "fixturenames", ()), *_texts(spec.params.values() if spec else ())}
    if named := ONE_PROCESS.keys() & names:
        return ONE_PROCESS[min(named)]
    if getattr(item, "nodeid", "").startswith(ANTHROPIC_SDK):
        return "anthropic"
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.values() if info else ()
    shared = sorted(
        each[-1].argname for each in definitions if each and each[-1].scope in ("module", "class")
    )
    if not shared:
        return None
    params = [str(spec.params[name]) for name in shared if spec and name in spec.params]
    return " ".join([item.nodeid.partition("::")[0], *shared, *params])


class Groups:
    """The group of each test: of those that are short and share nothing, some of a file at a time.

    pytest-xdist takes several milliseconds to hand out a group, however small, and more the more there were.
    """

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def of(self, item: pytest.Item) -> str:
        if name := group(item):
            return name
        if seconds(item.nodeid):
            return item.nodeid
        file = item.nodeid.partition("::")[0]
        self._seen[file] += 1
        return f"{file} {self._seen[file] // HANDED_OUT}"


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
