"""Real clients against the running processes: the page in Chromium, a stock Echo in Node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenarios", ["echo.test.mjs", "page.test.mjs"])
def test_real_clients(legato, scenarios):
    """Each file holds its scenarios as node:test cases; all of them pass, none is skipped."""
    result = subprocess.run(
        ["node", "--test", "--test-reporter=spec", scenarios],
        cwd=HERE,
        env=os.environ | {"LEGATO_URL": legato.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{legato.output[-5_000:]}"
    assert "skipped 0" in result.stdout
    assert "pass 0" not in result.stdout
