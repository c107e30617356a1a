"""`legato config init` and `show`, in this process."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from legato.deploy import cli, sample

SETTINGS = """\
[server]
port = 9000
[[apps]]
id = "1"
key = "k"
secret = "geheim"
[redis]
url = "redis://:geheim@h"
[provider]
name = "scripted"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [*os.environ]:
        if name.startswith(("LEGATO_", "REVERB_", "REDIS_", "DATABASE_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    path = tmp_path / "legato.toml"
    path.write_text(SETTINGS)
    return str(path)


def test_init_prints_what_sample_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert (cli.main(["config", "init"]), cli.main(["sample"])) == (0, 0)
    text = sample.text(sample.SETTINGS)
    assert capsys.readouterr().out == text * 2


def test_init_overwrites_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "legato.toml"
    assert cli.main(["config", "init", str(path)]) == 0
    path.write_text("mine")
    assert cli.main(["config", "init", str(path)]) == 1
    assert capsys.readouterr().err == f"legato config: {path} exists; --force overwrites it\n"
    assert path.read_text() == "mine"
    assert cli.main(["config", "init", str(path), "--force"]) == 0
    assert path.read_text() == sample.text(sample.SETTINGS)
    assert cli.main(["config", "init", str(tmp_path / "no" / "folder")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_show_names_sources_and_no_secret(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEGATO_APP_SECRET", "geheim too")
    monkeypatch.setenv("LEGATO_WORKER_TRIES", "3")
    assert cli.main(["config", "show", "--config", config]) == 0
    text = capsys.readouterr().out
    assert "geheim" not in text
    lines = [" ".join(line.split()).replace(config, "FILE") for line in text.splitlines()]
    assert len(lines) == len(set(lines)) + lines.count("") - 1 + repeated(lines)
    for line in (
        "port = 9000 # FILE",
        'secret = "***" # LEGATO_APP_SECRET',
        'key = "k" # FILE',
        'url = "redis://***@h" # FILE',
        "tries = 3 # LEGATO_WORKER_TRIES",
        "concurrency = 16 # default",
    ):
        assert line in lines


def repeated(lines: list[str]) -> int:
    """Lines of keys that several tables have with one value; headings may not be repeated."""
    keys = [line for line in lines if line]
    assert len([line for line in keys if line[0] == "["]) == len({line for line in keys if line[0] == "["})
    return len(keys) - len(set(keys))


def test_show_is_valid_toml(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "--config", config]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["apps"][0]["allowed_origins"] == ["*"]
    assert shown["doors"]["disconnect_grace"] == 10
    assert shown["provider"]["name"] == "scripted"


def test_show_of_one_program_takes_its_options(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("LEGATO_WORKER_TRIES=5\n")
    argv = ["config", "show", "worker", "--config", config, "--", "--processes", "8"]
    assert cli.main([*argv, "--env-file", str(tmp_path / ".env")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "processes = 8 # command line" in text
    assert "tries = 5 # LEGATO_WORKER_TRIES" in text
    assert "[server]" not in text
    assert "LEGATO_WORKER_TRIES" not in os.environ


def test_show_says_what_is_wrong_with_one_and_shows_the_other(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config).write_text(SETTINGS.replace("scripted", "anthropic"))
    assert cli.main(["config", "show", "--config", config]) == 2
    said = capsys.readouterr()
    assert "[server]" in said.out
    assert said.err.startswith("legato config show: worker: provider.api_key: is not set")
