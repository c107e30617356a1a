"""The tiers of the tests: what is no unit test is refused a program, and the tables name what is there."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import tiers
from tests.conftest import GUARD, pytest_ignore_collect

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


@pytest.mark.parametrize(
    ("file", "left_out"),
    [
        ("tests/e2e/test_up.py", True),
        ("tests/deploy/test_wheel.py", True),
        ("tests/e2e", False),
        ("tests/broadcaster/api/test_chat.py", False),  # only some of its tests are named
        ("tests/test_tiers.py", False),
    ],
)
@pytest.mark.parametrize("chosen", ["unit", ""])
def test_no_module_is_imported_for_no_unit_test(file, left_out, chosen):
    config = SimpleNamespace(rootpath=ROOT, option=SimpleNamespace(markexpr=chosen))
    assert bool(pytest_ignore_collect(ROOT / file, config)) == (left_out and chosen == "unit")


@pytest.mark.parametrize(
    ("node_id", "fixtures", "params", "alone"),
    [
        (f"{tiers.PROOF_ALONE[0]}[x]", [], [], True),
        ("tests/worker/replies/test_runner.py::test", ["redis_server"], ["redis"], True),
        ("tests/worker/replies/test_runner.py::test", ["redis_server"], ["valkey"], False),
        ("tests/worker/replies/test_runner.py::test", [], ["redis"], False),
        (f"{tiers.BOTH_SERVERS[-1]}::test", ["redis_server"], ["redis"], False),
        (f"{tiers.REPEATED_ON_A_CLUSTER[0]}::test", [], [], True),
        (f"{tiers.REPEATED_ON_A_CLUSTER[0]}::{min(tiers.ON_A_CLUSTER)}[x]", [], [], False),
        ("tests/worker/store/test_paths.py::test", ["any_database"], ["mysql"], True),
        ("tests/worker/store/test_paths.py::test", ["any_database"], ["postgresql"], False),
        (f"{tiers.WITH_MYSQL[0]}::test", ["any_database"], ["mysql"], False),
    ],
)
def test_variants_are_left_to_make_proof(node_id, fixtures, params, alone):
    assert tiers.proof_alone(node_id, fixtures, params) is alone


NAMED = {
    *(*tiers.PROGRAMS, *tiers.SECONDS, *tiers.TOGETHER_SECONDS, *tiers.ANTHROPIC_SDK),
    *(*tiers.PROOF_ALONE, *tiers.BOTH_SERVERS, *tiers.REPEATED_ON_A_CLUSTER, *tiers.WITH_MYSQL),
}


@pytest.mark.parametrize("prefix", sorted(NAMED))
def test_what_is_named_is_there(prefix):
    file, _, names = prefix.partition("::")
    if not names:
        assert list(ROOT.glob(f"{file}*"))
    text = (ROOT / file).read_text() if names else ""
    for name in names.split("::") if names else ():
        defined = rf"^\s*(?:(?:async )?def |class )?{name.partition('[')[0]}\b"
        assert re.search(defined, text, re.MULTILINE), name


@pytest.mark.parametrize("name", sorted(tiers.ON_A_CLUSTER))
def test_what_is_repeated_on_a_cluster_is_there(name):
    files = sorted((ROOT / "tests/worker").rglob("test_*.py"))
    assert any(f"async def {name}(" in file.read_text() for file in files)


@pytest.mark.parametrize(
    ("fixtures", "params", "group"),
    [
        (["tmp_path", "postgresql"], {}, "postgresql"),
        (["any_database"], {"any_database": "mysql"}, "mysql"),
        (["redis_cluster", "_redis_cluster"], {"n": 1}, "clusters"),
        (["node"], {"node": "valkey-cluster"}, "clusters"),
        (["redis_url"], {"redis_server": "valkey"}, None),
    ],
)
def test_what_takes_long_to_set_up_is_set_up_in_one_process(fixtures, params, group):
    item = SimpleNamespace(fixturenames=fixtures, callspec=SimpleNamespace(params=params))
    assert tiers.group(item) == group


def test_short_tests_are_handed_out_some_at_a_time():
    groups = tiers.Groups()
    items = [SimpleNamespace(nodeid=f"tests/a.py::test[{n}]") for n in range(tiers.HANDED_OUT * 2 - 1)]
    assert [groups.of(item) for item in items] == [
        *["tests/a.py 0"] * (tiers.HANDED_OUT - 1),
        *["tests/a.py 1"] * tiers.HANDED_OUT,
    ]
    assert groups.of(SimpleNamespace(nodeid="tests/b.py::test")) == "tests/b.py 0"
    long = SimpleNamespace(nodeid="tests/benchmarks/test_load.py::test")
    assert groups.of(long) == long.nodeid


@pytest.mark.xdist_group("together")
def test_groups_of_tests_are_kept_together(request):
    """pytest-xdist keeps together what ends alike; it and pytest have to agree on how ids are set."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@together") == grouped
