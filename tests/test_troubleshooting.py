"""Each reason that a log line may have is explained to who reads the log, and each is in use."""

from __future__ import annotations

import ast
import re
from typing import Final

from legato.protocol import refusals
from legato.protocol.refusals import REFUSALS
from tests.sources import GROUP, parsed
from tests.test_imports import ROOT, modules

pytestmark = GROUP

PAGE: Final = (ROOT / "docs" / "troubleshooting.md").read_text()
ROW: Final = re.compile(r"^\| `([a-z_]+)`( \*debug\*)? \| ", re.MULTILINE)


def test_each_reason_has_one_row_and_there_is_no_other():
    found = [reason for reason, _ in ROW.findall(PAGE)]
    assert sorted(found) == sorted(refusal.reason for refusal in REFUSALS)
    assert len(set(found)) == len(found) > 40


def test_the_rows_of_what_only_debug_shows_say_so():
    marked = {reason for reason, debug in ROW.findall(PAGE) if debug}
    assert marked == {refusal.reason for refusal in REFUSALS if refusal.level == "debug"}


def test_each_row_of_the_table_is_used():
    names = {name for name, value in vars(refusals).items() if isinstance(value, refusals.Refusal)}
    used = {
        node.attr
        for package in ("broadcaster", "protocol")
        for path in modules(package)
        for node in ast.walk(parsed(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "refusals"
    }
    assert names - used == set()


def test_texts_are_constant_lines():
    for refusal in REFUSALS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", refusal.reason)
        assert refusal.text.isprintable()
        assert len(refusal.text) <= 100
        assert "%" not in refusal.text
