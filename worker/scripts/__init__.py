"""The Lua scripts, each beside this file as ``NAME.lua``. All of them are safe to send twice."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis


class Script(Protocol):
    """A script bound to a client."""

    async def __call__(self, keys: Sequence[str], args: Iterable[str | bytes | int]) -> Any:
        """Run the script; ``keys`` are all it touches."""


class Registered(Script, Protocol):
    """Sends its SHA, and its text where the server does not know it yet."""

    @property
    def sha(self) -> str:
        """By which the server knows it."""


def load(redis: Redis, name: str) -> Registered:
    """Script ``name`` bound to ``redis``. Sends nothing yet."""
    text = resources.files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    script: Registered = redis.register_script(text)
    return script


async def awaited(answer: Any) -> Any:
    """The answer of a plain command, whose type in redis-py allows for a synchronous client too."""
    return await answer
