"""The documentation shows the chat page in every state that its tests walk through."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 1_500_000
"""Of all images: who clones the repository gets each version of them."""


def test_every_state_has_its_picture():
    walked = re.findall(r'visit\("([a-z-]+)"', (ROOT / "tests" / "e2e" / "states.mjs").read_text())
    shown = re.findall(r"\(images/states/([a-z-]+)\.png\)", (ROOT / "docs" / "page-states.md").read_text())
    assert len(walked) > 20
    assert sorted(walked) == sorted(shown) == sorted(path.stem for path in (IMAGES / "states").iterdir())


def test_the_pictures_are_small():
    assert sum(path.stat().st_size for path in IMAGES.rglob("*.png")) < MAX_BYTES
