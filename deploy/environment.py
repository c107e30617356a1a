"""The environment of a child process: what it needs to run, and its own settings only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from legato.protocol.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYSTEM: Final = frozenset(
    {
        *("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "NO_COLOR", "PATH", "TERM", "TMPDIR"),
        *("TZ", "USER", "VIRTUAL_ENV"),
        *("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"),
        *("all_proxy", "https_proxy", "http_proxy", "no_proxy"),
    }
)

# COVERAGE_: a test run measures its children.
_SYSTEM_PREFIXES: Final = ("COVERAGE_", "LC_", "PYTHON")

_OWN_PREFIXES: Final = {
    "broadcaster": (
        *(
            f"{PREFIX}{table}_"
            for table in ("SERVER", "METRICS", "AUTH", "CHAT", "DOORS", "DEV", "APP_SOURCE", "REDIS", "LOG")
        ),
        "PG",  # as below, for app_source.database_url and chat.database_url
    ),
    "worker": (
        *(f"{PREFIX}{table}_" for table in ("WORKER", "PROVIDER", "DATABASE", "REDIS", "LOG")),
        "PG",  # PGSSLROOTCERT and the like, for the PostgreSQL driver
    ),
}


_FOREIGN_PREFIXES: Final = ("ANTHROPIC_", "DATABASE_", "PUSHER_", "REDIS_", "REVERB_", "SOKETI_", PREFIX)
"""Variables that are settings of some program: none gets them as a guest's."""


def of_child(
    kind: str, environ: Mapping[str, str], settings: Mapping[str, str], *, guests: bool = False
) -> dict[str, str]:
    """The environment of a child of this ``kind``: its part of ``environ``, then ``settings``.

    :param guests: it runs users' code, which may need any variable that is no setting of a program.
    """
    prefixes = _SYSTEM_PREFIXES + _OWN_PREFIXES[kind]
    kept = {
        name: value
        for name, value in environ.items()
        if name in _SYSTEM or name.startswith(prefixes) or (guests and not name.startswith(_FOREIGN_PREFIXES))
    }
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(settings)
