"""Where ``legato up`` looks for the chat page, in a checkout and in a wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from legato.deploy import chat_page
from legato.deploy.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_in_a_checkout_it_is_where_make_builds_it(tmp_path: Path) -> None:
    put(tmp_path / "client-js" / "build.mjs")
    put(tmp_path / "deploy" / "page" / "index.html")
    index = put(tmp_path / "client-js" / "dist" / "page" / "index.html")
    assert chat_page.directory({}, tmp_path / "deploy") == index.parent
    index.unlink()
    with pytest.raises(CommandError, match=r"no chat page in .*/client-js/dist/page: run `make setup`$"):
        chat_page.directory({}, tmp_path / "deploy")


def test_in_a_wheel_it_is_in_the_package_and_nobody_is_sent_to_make(tmp_path: Path) -> None:
    index = put(tmp_path / "deploy" / "page" / "index.html")
    assert chat_page.directory({}, tmp_path / "deploy") == index.parent
    index.unlink()
    with pytest.raises(CommandError, match=r"/deploy/page: install Legato again, or set LEGATO_DEV_PAGE$"):
        chat_page.directory({}, tmp_path / "deploy")


def test_a_page_of_ones_own_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "deploy" / "page" / "index.html")
    own = put(tmp_path / "own" / "index.html")
    monkeypatch.chdir(tmp_path)
    assert chat_page.directory({"LEGATO_DEV_PAGE": "own"}, tmp_path / "deploy") == own.parent
    own.unlink()
    with pytest.raises(CommandError, match=r"/own: LEGATO_DEV_PAGE names this directory$"):
        chat_page.directory({"LEGATO_DEV_PAGE": "own"}, tmp_path / "deploy")
