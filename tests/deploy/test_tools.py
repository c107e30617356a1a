"""What setting up says when a tool is missing: the real script, with stand-ins for the tools on PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = {"python3": "exit 0", "node": "exit 0", "npm": "exit 0"}
OLD_PYTHON = 'case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac'
NO_VENV = 'case "$*" in *ensurepip*) exit 1;; esac'
OLD_NODE = 'case "$*" in -e*) exit 1;; --version) echo v18.19.0;; esac'


def run(script: str, path: Path, tools: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    path.mkdir()
    for name, body in tools.items():
        (path / name).write_text(f"#!/bin/sh\n{body}\n")
        (path / name).chmod(0o755)
    shell = shutil.which("sh")
    assert shell
    return subprocess.run(
        [shell, ROOT / script, *argv], env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ({"python3": None}, "python3 is missing: install Python 3.11 or newer"),
        ({"python3": OLD_PYTHON}, "python3 is Python 3.9.2: install Python 3.11 or newer"),
        ({"python3": NO_VENV}, "python3 has no venv module: install it"),
        ({"node": None}, "node is missing: install Node.js 20 or newer"),
        ({"node": OLD_NODE}, "node is v18.19.0: install Node.js 20 or newer"),
        ({"npm": None}, "npm is missing: install it"),
    ],
)
def test_a_missing_tool_is_one_line(tmp_path: Path, tools: dict[str, str | None], line: str) -> None:
    found = {name: body for name, body in (GOOD | tools).items() if body is not None}
    done = run("deploy/check-tools.sh", tmp_path / "bin", found, "python3")
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_nothing_is_said_when_all_is_there(tmp_path: Path) -> None:
    done = run("deploy/check-tools.sh", tmp_path / "bin", GOOD, "python3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_tests_own_needs_are_one_line_where_they_cannot_be_installed(tmp_path: Path) -> None:
    there = {"id": "echo 1000", "chromium": "", "pg_ctlcluster": "", "php": ""}
    done = run("tests/setup-debian.sh", tmp_path / "bin", there)
    assert done.returncode == 1
    missing = "redis-server mariadb-server systemd gcc libc6-dev strace prometheus"
    assert done.stderr == f"The tests need {missing}: install it (Debian and Ubuntu: apt install {missing})\n"


def test_the_tests_own_needs_are_installed_for_root_on_debian(tmp_path: Path) -> None:
    if not Path("/etc/debian_version").exists():
        pytest.skip("not a Debian")
    log = tmp_path / "log"
    tools = {"id": "echo 0", "apt-get": f'echo "$@" >> {log}'}
    assert run("tests/setup-debian.sh", tmp_path / "bin", tools).returncode == 0
    assert log.read_text().splitlines() == [
        "-qq update",
        (
            "-qq install -y --no-install-recommends redis-server chromium-headless-shell postgresql "
            "mariadb-server systemd gcc libc6-dev strace php-cli php-redis prometheus"
        ),
    ]
