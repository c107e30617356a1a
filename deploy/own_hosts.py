"""The hosts under which browsers reach ``legato up``; their pages may use it."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - it is looked up, not bound

_NAME: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")

_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation, which nobody uses. The route there is the default route."""


def of(host: str, port: int, environ: Mapping[str, str]) -> list[str]:
    """Origin patterns: this machine, the address it listens on, and ``LEGATO_DEV_HOSTS``."""
    from legato.broadcaster.config import LOCAL_HOSTS  # noqa: PLC0415 - as in legato.deploy.up

    names = list(_machine()) if host in WILDCARDS else [host]
    own = [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names]
    further = [part.strip() for part in environ.get("LEGATO_DEV_HOSTS", "").split(",")]
    return list(dict.fromkeys(name for name in (*LOCAL_HOSTS, *own, *further) if name))


def _machine() -> Iterator[str]:
    """The machine's name and its external addresses."""
    name = socket.gethostname()
    if _NAME.fullmatch(name):  # the kernel accepts any text
        yield name
    for family, address in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))  # sends nothing: it only selects a local address
                yield probe.getsockname()[0]
        except OSError:  # no route
            continue
