"""``legato migrate``, as an operator runs it."""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from legato.worker import migrate_options
from legato.worker.store import migrate


def run(url: str, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    for name in [*os.environ]:
        if re.match("LEGATO_|DATABASE_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", url)
    parser = argparse.ArgumentParser()
    migrate_options.add_arguments(parser)
    return migrate.run(parser.parse_args(argv))


def test_it_checks_changes_and_needs_nothing_but_the_database(
    any_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if path := any_database.partition("sqlite:///")[2]:
        Path(path).touch()
    assert run(any_database, monkeypatch, "--check") == 1
    line = "it has no tables of Legato, revision 0003 is needed: run `legato migrate`"
    assert capsys.readouterr().err == f"legato migrate: the database cannot be used: {line}\n"
    for argv in ([], ["--check"], []):
        assert run(any_database, monkeypatch, *argv) == 0
        assert capsys.readouterr().out == "The database is up to date (revision 0003).\n"


def test_check_creates_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new folder" / "a?b%20#c.db"
    url = f"sqlite:///{quote(str(path), safe='/ ')}"
    assert run(url, monkeypatch, "--check") == 1
    said = f"legato migrate: there is no database yet: {path} does not exist; `legato migrate` creates it\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_check_leaves_a_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a?b%20#c.db"
    url = f"sqlite:///{quote(str(path), safe='/ ')}"
    assert run(url, monkeypatch) == 0
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")  # a worker would set WAL
    connection.close()
    before = path.read_bytes()
    assert run(url, monkeypatch, "--check") == 0
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/at/all.db",
        "postgresql://ann:geheim@/x?host=/nowhere",
        "mysql://ann:geheim@localhost/x?unix_socket=/nowhere/x.sock",
    ],
)
def test_database_that_cannot_be_used_is_one_line_without_its_address(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(url, monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("legato migrate: the database cannot be used: ")
    assert "geheim" not in line
