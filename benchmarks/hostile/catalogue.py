"""The catalogue of attacks, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

from . import by_fallback, by_http, by_websocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .attack import Attack

ATTACKS: Final[Mapping[str, Attack]] = {
    attack.name: attack for attack in (*by_websocket.ATTACKS, *by_http.ATTACKS, *by_fallback.ATTACKS)
}

GROUPS: Final = tuple(dict.fromkeys(attack.group for attack in ATTACKS.values()))


def chosen(names: Sequence[str]) -> list[Attack]:
    """The attacks of these names or groups, in the order of the catalogue; all without any.

    :raises BenchmarkError: one is unknown.
    """
    for name in names:
        if name not in ATTACKS and name not in GROUPS:
            raise BenchmarkError(
                f"--only {name}: no such attack; legato bench hostile --list names them", BAD_USAGE
            )
    return [attack for attack in ATTACKS.values() if not names or {attack.name, attack.group} & set(names)]


def listed() -> str:
    """The table of attacks."""
    lines = []
    for group in GROUPS:
        lines.append(f"{group}:")
        lines += [
            f"  {attack.name:<20}{attack.summary}" for attack in ATTACKS.values() if attack.group == group
        ]
    return "\n".join(lines) + "\n"
