"""The sources of the project, parsed: once in a process, however many tests read them.

Tests that read all of them are one group for pytest-xdist (:data:`GROUP`), so that one process does it.
"""

from __future__ import annotations

import ast
import functools

import pytest

GROUP = pytest.mark.xdist_group("sources")
"""For ``pytestmark``."""


@functools.cache
def parsed(text: str) -> ast.Module:
    """The tree of a module with this text. It is shared: nobody may change it."""
    return ast.parse(text)
