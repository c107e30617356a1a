"""People in Chromium, to whom everything happens: every tab ends up with the whole reply."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import legato_up
from tests.e2e.links import links_to
from tests.e2e.scenarios import HERE, pass_all
from tests.tiers import PROOF_TIMEOUT, amount

PAGE = HERE.parents[1] / "client-js" / "dist" / "page"
ENVIRON = {
    "LEGATO_SERVER_PROCESSES": "2",
    "LEGATO_SERVER_SEND_QUEUE_BYTES": "65536",
    "LEGATO_WORKER_PROCESSES": "2",
    "LEGATO_WORKER_LEASE": "2",
    "LEGATO_WORKER_TRIES": "9",  # whoever has the reply is killed again and again
}

DAY = dt.datetime.now(dt.UTC).toordinal()
"""The seed in short: each day three other scenarios, since all of them take most of a minute of CPU time.

A failure names its seed; ``SEEDS=N-N`` repeats it.
"""


@pytest.mark.proof
@pytest.mark.timeout(700)
def test_every_tab_recovers(tmp_path):
    page = shutil.copytree(PAGE, tmp_path / "page")
    with (
        legato_up(tmp_path / "data", LEGATO_DEV_PAGE=str(page), **ENVIRON) as legato,
        links_to(legato.port) as links_port,
    ):
        told = {
            "LEGATO_URL": legato.url,
            "LEGATO_PID": str(legato.process.pid),
            "LINKS_PORT": str(links_port),
            "PAGE_DIR": str(page),
            "SEEDS": os.environ.get("SEEDS") or f"{amount(DAY, 1)}-{amount(DAY, 50)}",
        }
        if results := os.environ.get("RESULTS"):
            told["RESULTS"] = str(Path(results).absolute())
        seconds = amount(600, PROOF_TIMEOUT)
        pass_all("recovery", seconds=seconds, said=lambda: legato.output, **told)
        assert legato.stop() == 0
    assert "Traceback" not in legato.output
