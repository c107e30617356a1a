"""The units are ones that systemd takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))


def test_there_is_one_for_each_program() -> None:
    assert [unit.name for unit in UNITS] == ["legato-broadcaster.service", "legato-worker.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_it_without_a_word(unit: Path, tmp_path: Path) -> None:
    """With a program and a user that this machine has."""
    text = unit.read_text().replace("/opt/legato/.venv/bin/legato", "/bin/true")
    copy = tmp_path / unit.name
    copy.write_text(text.replace("User=legato", "User=root").replace("Group=legato", "Group=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
