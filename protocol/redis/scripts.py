"""Loads the Lua scripts that run in Redis. Each is a file ``NAME.lua`` in the package that calls it.

The head of each file states the keys, the arguments and the answer. Every script names all keys it touches
in ``KEYS``, as a Cluster requires, and is safe to send twice.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis


class Script(Protocol):
    """A script bound to a client."""

    async def __call__(self, keys: Sequence[str], args: Iterable[str | bytes | int]) -> Any:
        """Run the script; ``keys`` are all it touches.

        :raises RedisError: the server does not answer, or the script failed.
        """


class Registered(Script, Protocol):
    """A script that is sent by its SHA; its text follows once if the server does not know it (NOSCRIPT)."""

    @property
    def sha(self) -> str:
        """The SHA-1 of the text in hexadecimal, for ``EVALSHA``."""


def text(package: str, name: str) -> str:
    """The source of script ``name`` of ``package``, from the file ``NAME.lua``.

    :raises FileNotFoundError: the package has no such script.
    """
    return resources.files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def load(redis: Redis, package: str, name: str) -> Registered:
    """Bind script ``name`` of ``package`` to ``redis``. Sends nothing yet.

    :raises FileNotFoundError: the package has no such script.
    """
    script: Registered = redis.register_script(text(package, name))
    return script
