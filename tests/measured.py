"""What coverage measures: it doubles the time of what it measures, and of the start of each program.

Much need not be measured, since other tests run the same lines. And its account of greenlets costs a quarter
of the rest: only tests that use SQLAlchemy's asyncio, which runs code of ours in them, need it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import greenlet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOT_THE_PROGRAMS: Final = (
    "tests/benchmarks/chaos/test_runs.py",
    "tests/benchmarks/chaos/test_series.py",
    "tests/benchmarks/test_hostile.py",
    "tests/benchmarks/test_versus.py",
    "tests/broadcaster/test_server.py::test_an_error_is_one_clear_line",
    "tests/deploy/test_supervisor.py::test_processes_that_are_shared_out_evenly_",
    "tests/deploy/test_supervisor.py::test_worn_processes_make_way_and_lose_nothing",
    "tests/e2e/",
)
"""Prefixes of the node ids of tests that are measured, but not the programs that they start."""

NOT_AT_ALL: Final = (
    "tests/benchmarks/chaos/test_audit.py::test_a_frame_that_comes_",
    "tests/benchmarks/conformance/test_legato.py",
    "tests/benchmarks/test_hostile.py::test_every_attack_is_borne",
    "tests/broadcaster/transport/test_any_bytes.py",
    "tests/broadcaster/transport/test_floods.py",
    "tests/broadcaster/transport/test_plain.py",
    "tests/broadcaster/transport/test_uvicorn.py::test_nothing_below_the_server_is_used",
    "tests/protocol/redis/test_internals.py",
    "tests/test_architecture.py",
    "tests/test_bounds.py",
    "tests/test_docs.py",
    "tests/test_imports.py",
    "tests/test_links.py",
    "tests/test_measured.py",
    "tests/test_names.py",
    "tests/test_twins.py",
)
"""Tests that take far longer when they are measured, or only read the sources."""

AGAIN: Final = frozenset({"redis", "uvloop"})
"""Parameters of tests that run the same lines for another, too: valkey, asyncio."""

GREENLETS: Final = ("tests/broadcaster/apps/", "tests/deploy/test_up.py", "tests/worker/")
"""Tests that use SQLAlchemy's asyncio."""

PROGRAMS: Final = "COVERAGE_PROCESS_CONFIG"
"""The variable by which coverage measures a program that a test starts."""


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
        if node_id.startswith(NOT_THE_PROGRAMS):
            stack.enter_context(_without_programs())
        if not node_id.startswith(GREENLETS):
            stack.enter_context(without_greenlets(node_id))
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
