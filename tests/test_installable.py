"""The chat page can be installed: its manifest has what browsers ask for, and icons of the named sizes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

PAGE = Path(__file__).parents[1] / "client-js" / "page"
STATIC = PAGE / "static"
MANIFEST = json.loads((STATIC / "manifest.webmanifest").read_text())


def size(png: Path) -> str:
    """Such as ``192x192``."""
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG")
    return "{}x{}".format(*struct.unpack(">II", data[16:24]))


def test_the_manifest_has_what_browsers_ask_for():
    assert '<link rel="manifest" href="manifest.webmanifest"' in (PAGE / "index.html").read_text()
    assert MANIFEST["name"]
    assert MANIFEST["display"] == "standalone"
    # Relative, so that the page may be in any folder.
    assert {MANIFEST[key] for key in ("id", "start_url", "scope")} == {"./"}


def test_the_icons_have_the_sizes_that_it_names():
    icons = {icon["src"]: icon for icon in MANIFEST["icons"]}
    named = {src: icon["sizes"] for src, icon in icons.items() if src.endswith(".png")}
    assert named == {src: size(STATIC / src) for src in named}
    assert {"192x192", "512x512"} <= set(named.values())
    assert (STATIC / "icon.svg").is_file()
    assert [src for src, icon in icons.items() if icon.get("purpose") == "maskable"]
