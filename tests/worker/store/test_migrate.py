"""``legato migrate``, as an operator runs it."""

from __future__ import annotations

import argparse
import os
import re

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
    assert run(any_database, monkeypatch, "--check") == 1
    line = "it has no tables of Legato, revision 0002 is needed: run `legato migrate`"
    assert capsys.readouterr().err == f"legato migrate: the database cannot be used: {line}\n"
    for argv in ([], ["--check"], []):
        assert run(any_database, monkeypatch, *argv) == 0
        assert capsys.readouterr().out == "The database is up to date (revision 0002).\n"


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
