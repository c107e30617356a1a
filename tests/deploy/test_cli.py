"""The command line, as a user calls it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from legato.deploy import cli
from legato.deploy.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def legato(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE_"))}
    return subprocess.run(
        [sys.executable, "-P", "-m", "legato.deploy", *argv],
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_a_command_it_helps_and_fails() -> None:
    done = legato()
    assert done.returncode == 2
    assert all(name in done.stderr for name in cli.COMMANDS)


def test_help_names_commands_and_exit_statuses() -> None:
    done = legato("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "exit status:" in done.stdout
    for command in cli.COMMANDS.values():
        assert command.summary in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("up", ["--port", "--host", "--data", "--scripted"]),
        ("broadcaster", ["--config", "--port", "--host", "--processes"]),
        ("worker", ["--config", "--queue", "--concurrency", "--processes"]),
    ],
)
def test_help_of_a_command_is_complete(name: str, options: list[str]) -> None:
    done = legato(name, "--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert all(option in done.stdout for option in options)


def test_the_version_is_the_installed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """On the first line; then the versions of what it stands on."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    version = importlib.metadata.version
    first, python, *others = capsys.readouterr().out.splitlines()
    assert first == f"legato {version('legato')}"
    assert python == f"Python {platform.python_version()} ({platform.python_implementation()})"
    assert others == [f"{name} {version(name)}" for name in ("uvloop", "websockets", "redis")]


@pytest.mark.parametrize(
    ("argv", "environ", "line"),
    [
        (("--nope",), {}, "unrecognized arguments: --nope"),
        (("up", "--nope"), {}, "unrecognized arguments: --nope"),
        (("sing",), {}, "invalid choice: 'sing'"),
        (("worker",), {}, "legato worker: redis.url: "),
        (("worker", "--processes", "0"), {"REDIS_URL": "redis://x"}, "processes"),
        (("broadcaster",), {}, "legato broadcaster: "),
        (("worker", "--config", "/no/such.toml"), {}, "legato worker: /no/such.toml: cannot be read"),
        (
            ("worker",),
            {"REDIS_URL": "redis://x", "LEGATO_PROVIDER_NAME": "scripted", "LEGATO_LOG_LEVEL": "loud"},
            "log.level (LEGATO_LOG_LEVEL): expected one of debug, info, warning, error, got 'loud'",
        ),
    ],
)
def test_wrong_usage_is_a_line_and_2(argv: tuple[str, ...], environ: dict[str, str], line: str) -> None:
    done = legato(*argv, **environ)
    assert done.returncode == 2
    assert line in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_ctrl_c_before_anything_runs_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "up", cli.Command("x", "x", "legato.deploy.up_options", interrupt))
    assert cli.main(["up"]) == 130


def test_a_command_that_cannot_is_one_line_and_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise CommandError("the reason")

    monkeypatch.setitem(cli.COMMANDS, "up", cli.Command("x", "x", "legato.deploy.up_options", fail))
    assert cli.main(["up"]) == 1
    assert capsys.readouterr().err == "legato up: the reason\n"


def test_a_directory_called_deploy_is_not_taken_for_ours(tmp_path: Path) -> None:
    from legato.deploy.up import LEGATO  # noqa: PLC0415

    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "__init__.py").touch()
    done = subprocess.run(
        [*LEGATO, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.startswith("legato ")
