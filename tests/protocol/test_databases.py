"""Addresses of databases, and what their mistakes say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.databases import DRIVERS, EXTRAS, DatabaseUrlError, not_installed, reason, with_driver

ADDRESSES = [
    ("sqlite:///legato.db", "sqlite+aiosqlite:///legato.db"),
    ("sqlite+aiosqlite:////srv/x.db", "sqlite+aiosqlite:////srv/x.db"),
    ("postgres://u:p@h/n", "postgresql+asyncpg://u:p@h/n"),
    ("postgresql://h/n?sslmode=verify-full&x=%26", "postgresql+asyncpg://h/n?ssl=verify-full&x=%26"),
    ("postgresql+asyncpg://h/n?a=b&sslmode=require", "postgresql+asyncpg://h/n?a=b&ssl=require"),
    ("postgresql+psycopg://h/n?sslmode=require", "postgresql+psycopg://h/n?sslmode=require"),
    ("mysql://h/n?sslmode=x", "mysql+asyncmy://h/n?sslmode=x"),
    ("mariadb://h/n", "mysql+asyncmy://h/n"),
]


@pytest.mark.parametrize(("url", "expected"), ADDRESSES)
def test_an_address_gets_its_asyncio_driver(url, expected):
    assert with_driver(url) == expected


@pytest.mark.parametrize(
    "url", ["", "legato.db", "redis://:hush-hush@h", "oracle://h", "+x://h", "sqlite:/x"]
)
def test_what_is_no_address_is_one_line_without_it(url):
    with pytest.raises(DatabaseUrlError, match=r"^expected sqlite:///FILE, ") as caught:
        with_driver(url)
    assert "hush-hush" not in str(caught.value)


@given(st.sampled_from([*DRIVERS, "x", ""]), st.text())
def test_nothing_else_changes_and_nothing_else_is_raised(scheme, rest):
    try:
        got = with_driver(f"{scheme}://{rest}")
    except DatabaseUrlError:
        assert scheme not in DRIVERS
    else:
        assert got.count("&") == rest.count("&")
        if "sslmode=" not in rest:
            assert got == f"{DRIVERS[scheme]}://{rest}"


def test_a_missing_driver_says_what_installs_it():
    assert not_installed("asyncpg").endswith("asyncpg is not installed: pip install 'legato[postgres]'")
    assert not_installed("psycopg").endswith("psycopg is not installed: pip install psycopg")


def test_the_extras_are_those_of_the_package():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for module, extra in EXTRAS.items():
        assert any(requirement.startswith(module) for requirement in extras[extra])


class WrappedError(Exception):
    """As SQLAlchemy wraps a driver's error."""

    def __init__(self, orig: Exception | None) -> None:
        super().__init__("(Error) no such table [SQL: SELECT secret]")
        self.orig = orig


def test_why_a_database_cannot_be_used_is_the_drivers_own_word_in_one_line():
    assert reason(WrappedError(OSError("no\n  such host"))) == "no such host"
    assert reason(WrappedError(TimeoutError())) == "TimeoutError"
    assert reason(OSError("gone")) == "gone"
