"""Every link between the documents leads to a file that exists, and to a heading that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "client-js" / "README.md")
)


def links(text: str) -> set[str]:
    """Targets of the links of a page, without those to other sites."""
    return {link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:", link)}


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> set[str]:
    """The links of a page that lead nowhere."""
    found = set()
    for link in links(page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            found.add(link)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    assert broken(ROOT / page) == set()


def test_a_broken_link_would_be_seen(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# Two words\n[a](#two-words) [b](b.md) [c](#three-words) [d](https://example.com/x)\n")
    assert broken(page) == {"b.md", "#three-words"}


def test_the_pages_are_found():
    assert {"README.md", "docs/settings.md", "docs/decisions/0003-no-compression.md"} <= set(PAGES)
