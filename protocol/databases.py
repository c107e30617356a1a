"""Addresses of databases: which asyncio driver serves a scheme, and which of our extras installs it.

Users write ``postgresql://...`` as everywhere else; SQLAlchemy would take a blocking driver for that.
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
"""Module of a driver -> the extra that installs it. SQLite's is always there."""

EXPECTED: Final = "expected sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or mysql://..."


class DatabaseUrlError(ValueError):
    """No address of a database that can be used. One line, without the address: it may hold a password."""


def with_driver(url: str) -> str:
    """The address as SQLAlchemy's asyncio engine wants it.

    A driver that is named, as in ``postgresql+psycopg://``, stays. libpq's ``sslmode`` is called ``ssl`` by
    asyncpg, with the same values (https://magicstack.github.io/asyncpg/current/api/index.html#connection).

    :raises DatabaseUrlError: the scheme is none of :data:`DRIVERS`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in DRIVERS:
        raise DatabaseUrlError(EXPECTED)
    driver = DRIVERS.get(scheme, scheme)
    if driver.endswith("+asyncpg"):
        rest = _renamed(rest, "sslmode=", "ssl=")
    return f"{driver}{separator}{rest}"


def _renamed(rest: str, old: str, new: str) -> str:
    """One option of the query by its other name; every value as it was written."""
    address, mark, query = rest.partition("?")
    options = (new + part.removeprefix(old) if part.startswith(old) else part for part in query.split("&"))
    return f"{address}{mark}{'&'.join(options)}"


def reason(error: BaseException) -> str:
    """Why a database cannot be used, in one line, of any error of SQLAlchemy or its drivers.

    Without the statement and its values, which SQLAlchemy puts around the driver's own error.
    """
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()) or type(cause).__name__


def not_installed(module: str) -> str:
    """What a user does about a driver that cannot be imported, in one line."""
    package = f"'legato[{EXTRAS[module]}]'" if module in EXTRAS else module
    return f"the driver {module} is not installed: pip install {package}"
