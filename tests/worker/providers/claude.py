"""Legato's provider for Anthropic, imported when a test builds one.

Anthropic's SDK takes long to import, and every process of pytest imports all modules of tests. The tests
that build a provider go to one process: see ``ANTHROPIC_SDK`` in tests/tiers.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from legato.worker.providers.anthropic import Anthropic


def anthropic_provider(**options: Any) -> Anthropic:
    from legato.worker.providers.anthropic import Anthropic  # noqa: PLC0415 - see above

    return Anthropic(**options)
