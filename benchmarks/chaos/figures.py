"""The metrics of the nodes that run at the end."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .child import ClusterProcess

MADE_UP_FOR: Final = "tokens made up for"

HEALED: Final = {
    MADE_UP_FOR: "legato_healed_tokens_total",
    "endings made up for": "legato_healed_endings_total",
    "replies without their log": "legato_heals_failed_total",
}

_METRICS: Final = re.compile(r"metrics on (http://\S+)")
_FIGURE: Final = re.compile(r"^(\w+) (\S+)$", re.MULTILINE)


async def healed(nodes: Iterable[ClusterProcess]) -> Mapping[str, int]:
    """Sums over all nodes."""
    sums: Counter[str] = Counter()
    for node in nodes:
        *_, url = _METRICS.findall(node.log.read_text(encoding="utf-8", errors="replace"))
        for name, value in _FIGURE.findall(await asyncio.to_thread(_read, url)):
            sums[name] += int(float(value))
    return {name: sums[metric] for name, metric in HEALED.items()}


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=40) as response:  # noqa: S310 - http, of our own processes
        text: str = response.read().decode()
    return text
