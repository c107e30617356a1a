"""Fixtures that every package's tests may use."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import quick_ends, redis_clusters, redis_servers, tiers
from tests.kept_logging import kept_logging
from tests.measured import imports_measured, measured, without_greenlets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "untimed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=tiers.amount(60, 2_000),
)
settings.load_profile("untimed")

# A shell's background jobs ignore SIGINT, and so would all that tests start there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

BINARIES = redis_servers.binaries()
GUARD = tiers.Guard()
GUARD.install()
quick_ends.install()


@pytest.hookimpl(tryfirst=True)
@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this hook, too
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tiers; let what takes longest begin first, and keep together what shares a set-up."""
    _leave_to_proof(config, items)
    groups = tiers.Groups()
    names: dict[pytest.Item, str] = {}
    weights: dict[str, float] = {}
    for item in items:
        if tiers.is_unit(item.nodeid, getattr(item, "fixturenames", ()), _params(item)):
            item.add_marker("unit")
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("proof")
        if tiers.PROOF:
            item.add_marker(pytest.mark.timeout(tiers.PROOF_TIMEOUT), append=False)
        name = groups.of(item)
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(name))
        names[item] = name
        weights[name] = weights.get(name, 0.0) + tiers.seconds(item.nodeid)
    items.sort(key=lambda item: -weights[names[item]])


def _leave_to_proof(config: pytest.Config, items: list[pytest.Item]) -> None:
    alone = []
    for item in items:
        if tiers.proof_alone(item.nodeid, getattr(item, "fixturenames", ()), _params(item)):
            item.add_marker("proof")
            alone.append(item)
    if alone and not tiers.PROOF:
        config.hook.pytest_deselected(items=alone)
        left_out = set(alone)
        items[:] = [item for item in items if item not in left_out]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module for nothing."""
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if config.option.markexpr == "unit" and tiers.has_no_unit(path) else None


def _params(item: pytest.Item) -> Iterable[object]:
    spec = getattr(item, "callspec", None)
    return spec.params.values() if spec else ()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import all modules without looking for garbage, which takes a third of the time and finds none.

    What is there then stays to the end: no later search for garbage goes through it again.
    """
    gc.disable()
    try:
        with imports_measured(), without_greenlets("an import"):
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    GUARD.running = item.nodeid if item.get_closest_marker("unit") else None
    try:
        with measured(item.nodeid, _params(item)), kept_logging():
            return (yield)
    finally:
        GUARD.running = None


@pytest.fixture(scope="session")
def _valkey() -> Iterator[redis_servers.RedisServer]:
    with redis_servers.RedisServer(BINARIES["valkey"]) as server:
        yield server


@pytest.fixture(scope="session")
def _redis() -> Iterator[redis_servers.RedisServer]:
    with redis_servers.RedisServer(BINARIES["redis"]) as server:
        yield server


@pytest.fixture(params=BINARIES)
def redis_server(request: pytest.FixtureRequest) -> redis_servers.RedisServer:
    """A server shared by the whole run, once per implementation. Do not kill it: start your own for that."""
    server: redis_servers.RedisServer = request.getfixturevalue(f"_{request.param}")
    return server


@pytest.fixture
def redis_url(redis_server: redis_servers.RedisServer) -> str:
    """The address of an empty server, ``unix:///...``; a test that takes it runs once per implementation."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def valkey_url(_valkey: redis_servers.RedisServer) -> str:
    """As `redis_url`, for tests where one implementation is enough."""
    _valkey.flush()
    return _valkey.url


SYSTEM = BINARIES.get("redis", BINARIES["valkey"])
"""For tests where one implementation is enough, and more than one server is needed."""


@pytest.fixture(scope="session")
def _redis_cluster() -> Iterator[redis_clusters.Cluster]:
    with redis_clusters.Cluster(SYSTEM) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_redis_cluster: redis_clusters.Cluster) -> redis_clusters.Cluster:
    """Three empty masters, shared by the whole run: none may be killed; moved slots stay where they are."""
    _redis_cluster.flush()
    return _redis_cluster


@pytest.fixture(scope="session")
def _valkey_cluster() -> Iterator[redis_clusters.Cluster]:
    with redis_clusters.Cluster(BINARIES["valkey"]) as cluster:
        yield cluster


@pytest.fixture
def valkey_cluster(_valkey_cluster: redis_clusters.Cluster) -> redis_clusters.Cluster:
    """As `redis_cluster`, of Valkeys."""
    _valkey_cluster.flush()
    return _valkey_cluster
