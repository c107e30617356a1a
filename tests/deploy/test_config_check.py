"""`legato config check`: what it finds, and with which exit status it ends."""

from __future__ import annotations

import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from legato.deploy import cli, config_check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Check = Callable[..., tuple[int, list[str]]]

SETTINGS = """\
[[apps]]
id = "1"
key = "k"
secret = "9f86d081884c7d659a2f"
allowed_origins = ["chat.example.com"]
[provider]
name = "scripted"
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Checks settings after these; returns the status and the lines."""
    for name in [*os.environ]:
        if name.startswith(("LEGATO_", "REVERB_", "REDIS_", "DATABASE_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(more: str, *argv: str) -> tuple[int, list[str]]:
        path = tmp_path / "legato.toml"
        path.write_text(SETTINGS + more)
        status = cli.main(["config", "check", *argv, "--config", str(path)])
        return status, capsys.readouterr().out.replace(str(path), "FILE").splitlines()

    return run


def test_good_settings_are_clean(check: Check, valkey_url: str, tmp_path: Path) -> None:
    status, lines = check(
        f'[redis]\nurl = "{valkey_url}"\n[chat]\ndatabase_url = "sqlite:///legato.db"', "--strict"
    )
    assert (status, lines) == (0, ["no errors, no warnings"])
    assert [path.name for path in tmp_path.iterdir()] == ["legato.toml"], "a check makes no database"


def test_a_warning_is_a_failure_only_if_it_is_to_be(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    more = '[server]\ncors_origins = ["*"]\n'
    line = "warning: server.cors_origins: * lets any web page call the chat: name your sites"
    assert check(more, "broadcaster") == (0, [line, "no errors, 1 warning"])
    assert check(more, "broadcaster", "--strict") == (1, [line, "no errors, 1 warning"])
    monkeypatch.setenv("REVERB_WHAT", "1")
    assert check("", "broadcaster")[1][0] == "warning: environment: ignored, since unknown: REVERB_WHAT"


def test_wrong_settings_are_errors_of_the_program(check: Check) -> None:
    status, lines = check("[server]\nprot = 1")
    assert status == 2
    assert lines == [
        "error: broadcaster: FILE: server.prot: no such setting; did you mean port?",
        "error: worker: redis.url: is not set; the worker needs Redis: set REDIS_URL",
        "2 errors, no warnings",
    ]
    assert "log.level" in check("[log]\nlevel = 'loud'", "broadcaster")[1][0]
    (line, _) = check('[auth]\njwt_public_key = "/nowhere"', "broadcaster")[1]
    assert line.startswith("error: auth.jwt_public_key: /nowhere cannot be used")


def test_redis_that_does_not_answer_is_one_error(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_check, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"redis://:geheim@127.0.0.1:{port}"
        status, lines = check(f'[redis]\nurl = "{url}"\n[app_source]\nredis_hash = "h"')
    reason = "no answer within 0.2 seconds"
    assert status == 2
    assert lines == [
        f"error: redis.url: redis://127.0.0.1:{port} cannot be used: {reason}",
        f"error: app_source: cannot be read: {reason}",
        "2 errors, no warnings",
    ]
    gone = '[redis]\nurl = "unix:///nowhere/redis.sock"'
    (line, _) = check(gone, "broadcaster")[1]
    assert line.startswith("error: redis.url: unix:///nowhere/redis.sock cannot be used: ")
    assert check('[redis]\nurl = "h:1"', "broadcaster")[1][0].startswith(
        "error: redis.url: expected redis://"
    )


def test_database_without_tables_is_an_error_if_no_worker_makes_them(check: Check, tmp_path: Path) -> None:
    worker = "error: database.url: "
    redis = '[redis]\nurl = "unix:///nowhere/redis.sock"\n'
    lines = check(f"{redis}[database]\nmigrate = false", "worker")[1]
    assert f"{worker}there is no database yet: legato.db does not exist; `legato migrate` creates it" in lines
    (tmp_path / "legato.db").touch()
    lines = check(f"{redis}[database]\nmigrate = false", "worker")[1]
    assert f"{worker}it has no tables of Legato, revision 0003 is needed: run `legato migrate`" in lines
    (tmp_path / "legato.db").write_text("no database")
    lines = check(redis, "worker")[1]
    assert f"{worker}the database cannot be used: file is not a database" in lines
    (line, _) = check('[chat]\ndatabase_url = "nosql://u:geheim@h"', "broadcaster")[1]
    assert line.startswith("error: chat.database_url: expected sqlite:///FILE")


def test_few_open_files_are_a_warning(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 100))
    (line, _) = check("[server]\nmax_connections = 50", "broadcaster")[1]
    assert line.startswith("warning: the limit of 100 open files is too low for server.max_connections = 50")


def test_stored_applications_are_checked_too(check: Check, tmp_path: Path) -> None:
    (line, _) = check('[app_source]\ndatabase_url = "sqlite:////nowhere/x.db"', "broadcaster")[1]
    assert line.startswith("error: app_source: cannot be read: ")
