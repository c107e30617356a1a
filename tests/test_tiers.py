"""The tiers of the tests: what is no unit test is refused a program, and the tables name what is there."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiers
from tests.conftest import GUARD

ROOT = Path(__file__).parents[1]

COMMAND = [sys.executable, "-c", ""]


def test_unit_test_is_refused_a_process(request):
    assert GUARD.running == request.node.nodeid
    with pytest.raises(AssertionError, match="starts a program: it is not a unit test"):
        subprocess.run(COMMAND, check=True)
    with pytest.raises(AssertionError, match="starts a program"):
        multiprocessing.get_context("spawn").Process(target=int).start()


async def test_unit_test_is_refused_a_process_of_the_loop():
    with pytest.raises(AssertionError, match="starts a program"):
        await asyncio.create_subprocess_exec(*COMMAND)


def test_any_other_may_start_one(valkey_url):
    assert GUARD.running is None
    assert subprocess.run(COMMAND, check=True).returncode == 0


@pytest.mark.parametrize(
    ("node_id", "fixtures", "params", "unit"),
    [
        ("tests/a.py::test", [], [], True),
        ("tests/a.py::test", ["tmp_path"], [1, "local", ["x"]], True),
        ("tests/a.py::test", ["_valkey"], [], False),
        ("tests/a.py::test", ["settings"], ["valkey"], False),
        (f"{tiers.PROGRAMS[0]}::test", [], [], False),
        (max(tiers.SECONDS, key=tiers.SECONDS.__getitem__), [], [], False),
    ],
)
def test_unit_test_needs_no_server_and_little_time(node_id, fixtures, params, unit):
    assert tiers.is_unit(node_id, fixtures, params) is unit


@pytest.mark.parametrize("prefix", sorted({*tiers.PROGRAMS, *tiers.SECONDS}))
def test_what_is_named_is_there(prefix):
    file, _, names = prefix.partition("::")
    assert (ROOT / file).exists()
    text = (ROOT / file).read_text() if names else ""
    for name in names.split("::") if names else ():
        defined = rf"^\s*(?:(?:async )?def |class )?{name.partition('[')[0]}\b"
        assert re.search(defined, text, re.MULTILINE), name


@pytest.mark.xdist_group("together")
def test_groups_of_tests_are_kept_together(request):
    """pytest-xdist keeps together what ends alike; it and pytest have to agree on how ids are set."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@together") == grouped
