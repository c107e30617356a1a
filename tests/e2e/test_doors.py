"""Stock clients of each door against the running processes, which all of them share."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Legato, legato_up
from tests.e2e.scenarios import pass_all
from tests.tiers import PROOF, PROOF_TIMEOUT, amount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def running(data: Path, processes: int) -> Iterator[Legato]:
    """With so many nodes, and as many workers."""
    environ = {
        "LEGATO_WORKER_AGENT": "tests.e2e.desk:agent",
        "LEGATO_DOORS_DISCONNECT_GRACE": "1",
        "LEGATO_CHAT_ALLOW": "dialect",
        "LEGATO_WORKER_LEASE": "2",
        "LEGATO_WORKER_TRIES": "9",
        "LEGATO_SERVER_PROCESSES": str(processes),
        "LEGATO_WORKER_PROCESSES": str(processes),
    }
    with legato_up(data, **environ) as legato:
        yield legato
        assert legato.stop() == 0
        assert "Traceback" not in legato.output


@pytest.fixture(scope="module")
def legato(tmp_path_factory) -> Iterator[Legato]:
    with running(tmp_path_factory.mktemp("legato"), 1) as started:
        yield started


@pytest.fixture
def victim(request, tmp_path) -> Iterator[Legato]:
    """In short the same: its parts start again when they are killed."""
    if PROOF:
        with running(tmp_path, 2) as started:
            yield started
    else:
        yield request.getfixturevalue("legato")


@pytest.mark.timeout(700)
@pytest.mark.parametrize("door", ["events", "hooks", "ui", "streams", "ag-ui", "openai", "laravel-ai"])
def test_stock_clients_read_replies(legato, door):
    pass_all(f"doors-{door}", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)


DAY = dt.datetime.now(dt.UTC).toordinal()
"""The seed in short: another each day. A failure names its seed; ``SEEDS=N-N`` repeats it."""


@pytest.mark.proof
@pytest.mark.timeout(PROOF_TIMEOUT)
def test_stock_clients_have_all_of_replies_whatever_is_killed(victim):
    """In short one seed, without the hooks in a browser; :file:`doors-kills.test.mjs` says more."""
    pass_all(
        "doors-kills",
        "--test-force-exit",
        seconds=amount(600, PROOF_TIMEOUT),
        said=lambda: victim.output,
        LEGATO_URL=victim.url,
        LEGATO_PID=str(victim.process.pid),
        SEEDS=os.environ.get("SEEDS") or f"{amount(DAY, 1)}-{amount(DAY, 50)}",
    )
