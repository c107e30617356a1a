"""Database URLs: the asyncio driver of each scheme, and the extra that installs it.

Users write ``postgresql://...``, for which SQLAlchemy would choose a blocking driver.
"""

from __future__ import annotations

from typing import Final

DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
}
"""Scheme -> SQLAlchemy's name of dialect and driver."""

EXTRAS: Final = {"asyncpg": "postgres", "asyncmy": "mysql"}
"""Module of a driver -> the extra that installs it. SQLite's driver is always installed."""

EXPECTED: Final = "expected sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or mysql://..."


class DatabaseUrlError(ValueError):
    """An invalid database URL. One line without the URL, which may contain a password."""


def with_driver(url: str) -> str:
    """Rewrite the URL for SQLAlchemy's asyncio engine.

    A driver that the URL names, as in ``postgresql+psycopg://``, stays. asyncpg calls libpq's ``sslmode``
    ``ssl``, with the same values (https://magicstack.github.io/asyncpg/current/api/index.html#connection).

    :raises DatabaseUrlError: the scheme is not in :data:`DRIVERS`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in DRIVERS:
        raise DatabaseUrlError(EXPECTED)
    driver = DRIVERS.get(scheme, scheme)
    if driver.endswith("+asyncpg"):
        rest = _renamed(rest, "sslmode=", "ssl=")
    return f"{driver}{separator}{rest}"


def _renamed(rest: str, old: str, new: str) -> str:
    """Rename one option of the query and keep every value unchanged."""
    address, mark, query = rest.partition("?")
    options = (new + part.removeprefix(old) if part.startswith(old) else part for part in query.split("&"))
    return f"{address}{mark}{'&'.join(options)}"


def reason(error: BaseException) -> str:
    """The reason of an error of SQLAlchemy or its drivers, in one line.

    Omits the statement and its values, which SQLAlchemy adds to the driver's error.
    """
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()) or type(cause).__name__


def not_installed(module: str) -> str:
    """How to install a driver that cannot be imported, in one line."""
    package = f"'legato[{EXTRAS[module]}]'" if module in EXTRAS else module
    return f"the driver {module} is not installed: pip install {package}"
