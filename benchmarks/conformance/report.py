"""Results as text, JSON and a Markdown table."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .outcome import Result

MARKS: Final = {"pass": "ok  ", "fail": "FAIL", "not applicable": "n/a "}


def summary(results: Sequence[Result], note: str = "") -> str:
    """One line of counts.

    :param note: why not all cases are among the results; empty if they are.
    """
    counts = Counter(result.verdict for result in results)
    text = f"{counts['pass']} passed, {counts['fail']} failed, {counts['not applicable']} not applicable"
    return f"NOT complete: {note}: {text}" if note else text


def line(result: Result) -> str:
    """One result as text, with the reason unless it passed."""
    head = f"{MARKS[result.verdict]} {result.section:<5} {result.name}"
    return head if result.verdict == "pass" else f"{head}\n           {result.reason}"


def text(results: Sequence[Result], note: str = "") -> str:
    """The report as text."""
    return "".join(f"{line(result)}\n" for result in results) + f"\n{summary(results, note)}\n"


def as_json(results: Sequence[Result], note: str = "") -> str:
    """``{"passed", "failed", "not_applicable", "cases"}``; a case has the fields of :class:`Result`.

    With a note, ``"incomplete"`` is that.
    """
    counts = Counter(result.verdict for result in results)
    cases = [
        {
            "section": result.section,
            "name": result.name,
            "verdict": result.verdict,
            "reason": result.reason,
            "seconds": result.seconds,
        }
        for result in results
    ]
    body: dict[str, Any] = {
        "passed": counts["pass"],
        "failed": counts["fail"],
        "not_applicable": counts["not applicable"],
        "cases": cases,
    }
    if note:
        body["incomplete"] = note
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def markdown(results: Sequence[Result], note: str = "") -> str:
    """A table for a document."""
    rows = [
        f"| {result.section} | {_cell(result.name)} | {result.verdict} | {_cell(result.reason)} |"
        for result in results
    ]
    head = ["| section | case | verdict | seen |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", summary(results, note)]) + "\n"


def _cell(value: str) -> str:
    """Text that cannot end its cell, its row, or the page's own markup."""
    for char, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`"), ("\n", " ")):
        value = value.replace(char, escaped)
    return value


FORMATS: Final[Mapping[str, Callable[[Sequence[Result], str], str]]] = {
    "text": text,
    "json": as_json,
    "markdown": markdown,
}
