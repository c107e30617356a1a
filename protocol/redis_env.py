"""Composes ``REDIS_URL`` from a Laravel application's variables, as ``config/database.php`` does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from .settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST: Final = "127.0.0.1"

_NULL: Final = ("null", "(null)", "empty", "(empty)")
_SCHEMES: Final = {
    "": "redis",
    "tcp": "redis",
    "redis": "redis",
    "tls": "rediss",
    "ssl": "rediss",
    "rediss": "rediss",
}
_PLAIN: Final = re.compile(r"[^\s:/?#@\[\],]+|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\]")
_NO_PASSWORD: Final = re.compile(r"(?P<scheme>redis|rediss|tcp|tls)://(?P<rest>[^@]*)")


def with_redis_url(environ: Mapping[str, str], *, default: bool = False) -> dict[str, str]:
    """Add ``REDIS_URL`` to the environment, composed from ``REDIS_HOST`` and the like, unless it is set.

    :param default: use Laravel's default, a Redis on this machine, if none of them is set.
    :raises SettingsError: a variable is invalid. The line names it and repeats no password.
    """
    url = _text(environ, "REDIS_URL")
    host = _text(environ, "REDIS_HOST")
    if url:
        url = _with_password(url, environ)
    elif host or default:
        url = _from_parts(host or DEFAULT_HOST, environ)
    return {**environ, "REDIS_URL": url}


def source_of_url(environ: Mapping[str, str]) -> str:
    """The variable from which :func:`with_redis_url` has the URL."""
    names = ("REDIS_URL", "REDIS_HOST")
    return next((name for name in names if _text(environ, name)), "REVERB_SCALING_ENABLED")


def _from_parts(host: str, environ: Mapping[str, str]) -> str:
    database = _number(environ, "REDIS_DB", 0)
    if host.startswith("/"):
        return f"unix://{_user(environ, '@')}{quote(host)}?db={database}"
    scheme, found, name = host.rpartition("://")
    scheme = scheme if found else _text(environ, "REDIS_SCHEME")
    if scheme.lower() not in _SCHEMES or not _PLAIN.fullmatch(name):
        raise SettingsError("environment: REDIS_HOST: expected a host, tls://HOST or the path of a socket")
    name = f"[{name}]" if ":" in name and "[" not in name else name
    port = _number(environ, "REDIS_PORT", 6379)
    return f"{_SCHEMES[scheme.lower()]}://{_user(environ, '@')}{name}:{port}/{database}"


def _with_password(url: str, environ: Mapping[str, str]) -> str:
    """Complete a URL from the other variables, as Laravel does: above all the password."""
    match = _NO_PASSWORD.fullmatch(url)
    if match is None or "password=" in url:
        return url
    return f"{match['scheme']}://{_user(environ, '@')}{match['rest']}"


def _user(environ: Mapping[str, str], end: str) -> str:
    username, password = _text(environ, "REDIS_USERNAME"), _text(environ, "REDIS_PASSWORD")
    if not password:  # Redis expects both or neither
        return ""
    return f"{quote(username, safe='')}:{quote(password, safe='')}{end}"


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if text and not (text.isascii() and text.isdigit() and len(text) < 7):
        raise SettingsError(f"environment: {name}: expected a number")
    return int(text or default)


def _text(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "").strip()
    return "" if text.lower() in _NULL else text
