"""The units are ones that systemd takes, and the script that installs them."""

from __future__ import annotations

import subprocess
import sys
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


INSTALL = UNITS[0].parent / "install.sh"


def install(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", INSTALL, *options], capture_output=True, text=True, check=False, timeout=60)


def test_the_script_installs_where_the_units_look(tmp_path: Path) -> None:
    """A dry run prints what it would do, and does nothing."""
    wheel = tmp_path / "legato-1-py3-none-any.whl"
    wheel.touch()
    done = install("--dry-run", "--extras", "postgres", wheel)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "-m venv /opt/legato/.venv\n",
        f"{wheel}[postgres]\n",
        "-g legato /dev/stdin /etc/legato/legato.toml\n",
    ):
        assert text in done.stdout
    for unit in UNITS:
        assert f"/dev/stdin /etc/systemd/system/{unit.name}\n" in done.stdout
        assert "ExecStart=/opt/legato/.venv/bin/legato " in unit.read_text()
        assert "EnvironmentFile=-/etc/legato/environment\n" in unit.read_text()


@pytest.mark.parametrize("options", [(), ("--bla",), ("--extras", "oracle", "x.whl"), ("a.whl", "b.whl")])
def test_the_script_refuses_what_it_does_not_know_in_one_line(options: tuple[str, ...]) -> None:
    done = install(*options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


SCRIPTS = [INSTALL, INSTALL.parents[1] / "check-tools.sh", INSTALL.parents[2] / "tests" / "setup-debian.sh"]


def test_shell_scripts_have_no_known_mistakes() -> None:
    """The program is shellcheck, which its package puts beside Python."""
    program = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([program, *SCRIPTS], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
