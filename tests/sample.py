"""Makes ``deploy/legato.sample.toml`` from docs/settings.md and the types of settings, for ``make fmt``."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec

import legato.broadcaster.config
import legato.worker.config
from legato.protocol.apps import App, Webhook

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "deploy" / "legato.sample.toml"

HEAD = """\
# Settings of Legato, for `--config FILE`: every key with its default, and what it is in short.
# docs/settings.md says more. A key that stays commented out has its default.
#
# LEGATO_TABLE_KEY in the environment wins over this file: LEGATO_SERVER_PORT over server.port. Keep secrets
# there: LEGATO_APP_SECRET, LEGATO_AUTH_JWT_SECRET, ANTHROPIC_API_KEY.
#
# Sizes are in bytes, times in seconds. `legato broadcaster` and `legato worker` each read their own tables.
"""

REQUIRED = {
    "apps": {"id": "1", "key": "app-key", "secret": "a-long-random-secret"},
    "apps.webhooks": {"url": "https://example.com/webhook"},
}
"""Examples for what has no default."""

NOTES = {
    "apps": "An application; as many as you need, each below an [[apps]] of its own.",
    "apps.webhooks": "An address that webhooks of the application above go to.",
    "dev": "For development only: it gives tokens to everybody.",
}

ARRAYS = frozenset(REQUIRED)
"""Tables of which there may be none or many: in the sample their headings are commented out too."""

Table = tuple[str, type[msgspec.Struct]]


def tables() -> list[Table]:
    """The name and type of every table, as the broadcaster has them and then the worker."""
    found: dict[str, type[msgspec.Struct]] = {}
    for kind in (legato.broadcaster.config.Settings, legato.worker.config.Settings):
        for field in msgspec.structs.fields(kind):
            if field.name == "apps":
                found |= {"apps": App, "apps.webhooks": Webhook}
            else:
                found[field.name] = type(field.default)
    return list(found.items())


def default(table: str, field: msgspec.structs.FieldInfo) -> Any:
    """Its default, or an example where there is none."""
    if field.required:
        return REQUIRED[table][field.name]
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def meanings() -> dict[str, str]:
    """What docs/settings.md says of each setting: the first sentence and what 0 means, without links."""
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| [^|]+ \| (.+) \|$", text, re.MULTILINE)
    return {name: _short(meaning) for name, meaning in rows if "." in name}


def _short(meaning: str) -> str:
    plain = re.sub(r",? \[below\]\([^)]*\)|, below$", "", meaning)
    plain = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", plain)
    first, *more = re.split(r"(?<=[^.])\. (?=[A-Z`0-9])", plain)
    return ". ".join([first, *(sentence for sentence in more if sentence.startswith("0: "))]).rstrip(".")


def sample() -> str:
    """The whole file."""
    means = meanings()
    parts = [HEAD]
    for table, kind in tables():
        note = [f"# {NOTES[table]}"] if table in NOTES else []
        heading = f"#[[{table}]]" if table in ARRAYS else f"[{table}]"
        parts.append("\n".join([*note, heading, *_keys(table, kind, means), ""]))
    return "\n".join(parts)


def _keys(table: str, kind: type[msgspec.Struct], means: dict[str, str]) -> list[str]:
    lines = []
    for field in msgspec.structs.fields(kind):
        name = f"{table}.{field.name}"
        if name not in ARRAYS:  # a table of its own
            lines += [f"# {line}" for line in textwrap.wrap(means[name], 108, break_on_hyphens=False)]
            lines.append(f"#{field.name} = {json.dumps(default(table, field))}")
    return lines


if __name__ == "__main__":
    SAMPLE.write_text(sample(), encoding="utf-8")
