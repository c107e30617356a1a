"""Scenarios in files of node:test, run against what a test has started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def pass_all(file: str, *options: str, seconds: float, said: Callable[[], str] = str, **environ: str) -> None:
    """Each file holds its scenarios as cases: there are some, all of them pass, none is skipped.

    :param options: further ones of node.
    :param said: what the other side has said, for who looks for a fault.
    """
    result = subprocess.run(
        ["node", "--test", "--test-reporter=spec", *options, f"{file}.test.mjs"],
        cwd=HERE,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{said()[-5_000:]}"
    assert "skipped 0" in result.stdout
    assert "pass 0" not in result.stdout
