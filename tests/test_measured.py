"""What coverage leaves out is named, and it goes on behind it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import greenlet
import pytest

from tests import measured

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tracer(monkeypatch):
    """Stands for that of coverage."""

    class Tracer(SimpleNamespace):
        def __call__(self, *_):
            return None

    monkeypatch.setenv(measured.PROGRAMS, "{}")
    before, made = sys.gettrace(), Tracer(concur_id_func=greenlet.getcurrent)
    sys.settrace(made)
    yield made
    sys.settrace(before)


def within(tracer, node_id: str, *params: object) -> tuple[bool, bool, bool]:
    """Whether a test is measured, its programs, and its greenlets."""
    with measured.measured(node_id, params):
        found = sys.gettrace() is tracer, measured.PROGRAMS in os.environ, tracer.concur_id_func is not None
    assert sys.gettrace() is tracer
    assert measured.PROGRAMS in os.environ
    assert tracer.concur_id_func is greenlet.getcurrent
    return found


@pytest.mark.parametrize(
    ("node_id", "params", "found"),
    [
        ("tests/other.py::test", [], (True, False, False)),
        ("tests/other.py::test", ["valkey", 1, ["redis"]], (True, False, False)),
        ("tests/other.py::test", ["redis"], (False, False, True)),
        (f"{measured.GREENLETS[0]}test_a.py::test", [], (True, False, True)),
        (f"{measured.THE_PROGRAMS_TOO[0]}::test", [], (True, True, False)),
        (f"{measured.NOT_AT_ALL[0]}::test", [], (False, False, True)),
    ],
)
def test_coverage_leaves_out_what_is_named_and_goes_on_behind_it(tracer, node_id, params, found):
    assert within(tracer, node_id, *params) == found


def test_a_greenlet_is_refused_where_coverage_takes_no_account_of_it(tracer):
    one = greenlet.greenlet(lambda: 1)
    with (
        measured.measured("tests/other.py::test"),
        pytest.raises(AssertionError, match=r"tests/other\.py::test makes a switch of greenlets: name it"),
    ):
        one.switch()
    with measured.measured(f"{measured.GREENLETS[0]}test_a.py::test"):
        assert greenlet.greenlet(lambda: 1).switch() == 1


@pytest.mark.parametrize(("worker", "found"), [(None, True), ("gw0", True), ("gw1", False)])
def test_one_process_measures_the_imports(tracer, monkeypatch, worker, found):
    monkeypatch.delenv(measured.WORKER, raising=False)
    if worker:
        monkeypatch.setenv(measured.WORKER, worker)
    with measured.imports_measured():
        assert (sys.gettrace() is tracer) == found
    assert sys.gettrace() is tracer


@pytest.mark.parametrize(
    "prefix",
    sorted({*measured.THE_PROGRAMS_TOO, *measured.NOT_AT_ALL, *measured.GREENLETS}),
)
def test_what_is_named_is_there(prefix):
    file, _, name = prefix.partition("::")
    assert (ROOT / file).exists()
    assert not name or f"def {name}" in (ROOT / file).read_text()


def test_threads_are_not_measured_beside_greenlets(tracer):
    threading.settrace(tracer)
    try:
        for node_id, found in ((f"{measured.GREENLETS[0]}::test", None), ("tests/other.py::test", tracer)):
            with measured.measured(node_id):
                assert threading.gettrace() is found
            assert threading.gettrace() is tracer
    finally:
        threading.settrace(None)
