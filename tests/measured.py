"""What coverage measures: it doubles the time of what it measures, and of the start of each program.

So it measures few programs, and leaves out tests that run lines which others run, too. And its account of
greenlets costs a quarter of the rest: only tests that use SQLAlchemy's asyncio, which runs code of ours in
them, need it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import greenlet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

THE_PROGRAMS_TOO: Final = (
    "tests/benchmarks/test_load.py::test_every_scenario_works_and_is_written_down",
    "tests/benchmarks/test_tokens.py::test_streams_come_over_http_and_through_redis",
    "tests/broadcaster/test_server.py::test_a_signal_drains_and_ends_with_zero",
    "tests/deploy/test_children.py",
    "tests/deploy/test_supervisor.py::test_a_pause_holds_for_whoever_starts_until_continue_and_drain_ends_all",
    "tests/deploy/test_up.py",
)
"""Prefixes of the node ids of tests whose programs are measured: of what only programs run, they run most."""

NOT_AT_ALL: Final = (
    "tests/benchmarks/chaos/test_audit.py::test_a_frame_that_comes_",
    "tests/benchmarks/conformance/test_legato.py",
    "tests/benchmarks/test_hostile.py::test_every_attack_is_borne",
    "tests/broadcaster/api/test_chat_limits.py",
    "tests/broadcaster/api/test_chat_options.py",
    "tests/broadcaster/api/test_fair_chat.py",
    "tests/broadcaster/channels/test_passes.py",
    "tests/broadcaster/channels/test_slices.py",
    "tests/broadcaster/conversations/test_archive.py",
    "tests/broadcaster/observability/test_metrics_server.py",
    "tests/broadcaster/registry/test_registry.py",
    "tests/broadcaster/test_cluster.py",
    "tests/broadcaster/test_fan_out_cost.py",
    "tests/broadcaster/test_installations.py",
    "tests/broadcaster/test_least_rights.py",
    "tests/broadcaster/test_request_cost.py",
    "tests/broadcaster/test_rolling_restart.py",
    "tests/broadcaster/transport/test_any_bytes.py",
    "tests/broadcaster/transport/test_fallback.py",
    "tests/broadcaster/transport/test_floods.py",
    "tests/broadcaster/transport/test_http.py",
    "tests/broadcaster/transport/test_http_upgrades.py",
    "tests/broadcaster/transport/test_plain.py",
    "tests/broadcaster/transport/test_remembered.py",
    "tests/broadcaster/transport/test_slow_readers.py",
    "tests/broadcaster/transport/test_uvicorn.py",
    "tests/broadcaster/transport/test_websocket.py",
    "tests/deploy/test_chart.py",
    "tests/deploy/test_monitoring.py",
    "tests/protocol/redis/test_connections.py",
    "tests/protocol/redis/test_internals.py",
    "tests/protocol/redis/test_parked.py",
    "tests/protocol/redis/test_scripts.py",
    "tests/test_architecture.py",
    "tests/test_bounds.py",
    "tests/test_docs.py",
    "tests/test_imports.py",
    "tests/test_limits.py",
    "tests/test_links.py",
    "tests/test_measured.py",
    "tests/test_names.py",
    "tests/test_twins.py",
    "tests/worker/agents/test_examples.py",
    "tests/worker/agents/test_reloading.py",
    "tests/worker/jobs/test_fair_consumer.py",
    "tests/worker/jobs/test_fair_crashes.py",
    "tests/worker/jobs/test_fair_queue.py",
    "tests/worker/jobs/test_jobs.py",
    "tests/worker/jobs/test_positions.py",
    "tests/worker/providers/test_anthropic.py",
    "tests/worker/providers/test_anthropic_content.py",
    "tests/worker/providers/test_anthropic_transport.py",
    "tests/worker/providers/test_openai_compatible.py",
    "tests/worker/replies/test_overlap.py",
    "tests/worker/replies/test_token_cost.py",
    "tests/worker/replies/test_token_log.py",
    "tests/worker/store/test_paths.py",
    "tests/worker/store/test_revisions.py",
    "tests/worker/store/test_store.py",
)
"""Tests that take far longer when measured, that only read the sources, or run lines that others run, too.

What those of the last kind alone run is an eightieth of all: without them coverage takes half the time.
"""

AGAIN: Final = frozenset({"redis", "uvloop"})
"""Parameters of tests that run the same lines for another, too: valkey, asyncio."""

GREENLETS: Final = (
    "tests/broadcaster/api/test_chat_config.py",
    "tests/broadcaster/apps/",
    "tests/broadcaster/conversations/",
    "tests/deploy/test_config_check.py",
    "tests/deploy/test_up.py",
    "tests/worker/",
)
"""Tests that use SQLAlchemy's asyncio."""

PROGRAMS: Final = "COVERAGE_PROCESS_CONFIG"
"""The variable by which coverage measures a program that a test starts."""

WORKER: Final = "PYTEST_XDIST_WORKER"
"""The variable with the name of the process that runs the tests, if there are several."""


@contextlib.contextmanager
def imports_measured() -> Iterator[None]:
    """Within the block all modules of tests are imported, and what they need: one process measures that."""
    with contextlib.nullcontext() if os.environ.get(WORKER, "gw0") == "gw0" else _without_tracing():
        yield


@contextlib.contextmanager
def measured(node_id: str, params: Iterable[Any] = ()) -> Iterator[None]:
    """Within the block, coverage measures what it has to."""
    nothing = node_id.startswith(NOT_AT_ALL) or not AGAIN.isdisjoint(
        param for param in params if isinstance(param, str)
    )
    if nothing:
        with _without_programs(), _without_tracing():
            yield
        return
    with contextlib.ExitStack() as stack:
        if not node_id.startswith(THE_PROGRAMS_TOO):
            stack.enter_context(_without_programs())
        greenlets = node_id.startswith(GREENLETS)
        stack.enter_context(_without_threads() if greenlets else without_greenlets(node_id))
        yield


@contextlib.contextmanager
def _without_programs() -> Iterator[None]:
    before = os.environ.pop(PROGRAMS, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[PROGRAMS] = before


@contextlib.contextmanager
def _without_threads() -> Iterator[None]:
    """Within the block, threads that begin are not measured: that of aiosqlite runs nothing of ours.

    Coverage would give each a greenlet. CPython 3.11 now and then frees that within a pending call, and where
    another call is pending and the callback of a weak reference is traced, it never comes out of the loop.
    """
    before = threading.gettrace()
    threading.settrace(None)
    try:
        yield
    finally:
        threading.settrace(before)


@contextlib.contextmanager
def _without_tracing() -> Iterator[None]:
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@contextlib.contextmanager
def without_greenlets(what: str) -> Iterator[None]:
    """Within the block there is one greenlet for coverage: whoever switches to another is refused it."""
    tracer: Any = sys.gettrace()
    if getattr(tracer, "concur_id_func", None) is None:  # no coverage, or one that keeps no such account
        yield
        return

    def refuse(event: str, _which: object) -> None:
        raise AssertionError(f"{what} makes a {event} of greenlets: name it in tests/measured.py")

    account, tracer.concur_id_func = tracer.concur_id_func, None
    before = greenlet.settrace(refuse)
    try:
        yield
    finally:
        greenlet.settrace(before)
        tracer.concur_id_func = account
