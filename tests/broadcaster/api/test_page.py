"""The files of the chat page: what a browser gets, and how long it may keep it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.responses import FileResponse

from legato.broadcaster.api.page import Page

if TYPE_CHECKING:
    from starlette.responses import Response


class Answer:
    """What a browser would get, without sending it."""

    def __init__(self, response: Response) -> None:
        self.status, self.headers = response.status_code, response.headers
        self.body = Path(response.path).read_bytes() if isinstance(response, FileResponse) else response.body


async def get(page: Page, path: str, **headers: str) -> Answer:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": raw}
    return Answer(await page.get_response(page.get_path(scope), scope))


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / "assets").mkdir()
    for name in ("index.html", "assets/page-ABC.js", "app.webmanifest"):
        (tmp_path / name).write_text("plain")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"plain"))
    (tmp_path / "assets/page-ABC.js.br").write_bytes(b"small")
    (tmp_path / "icon.png").write_bytes(b"png")
    return Page(directory=tmp_path, html=True)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("br;q=0.0", None),
        ("*", None),
    ],
)
async def test_the_smallest_that_the_browser_reads(page, accepted, encoding):
    asked = {} if accepted is None else {"accept_encoding": accepted}
    answer = await get(page, "/assets/page-ABC.js", **asked)
    assert answer.status == 200
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert len(answer.body) == int(answer.headers["content-length"])


async def test_what_has_a_hash_in_its_name_is_kept_and_the_rest_is_asked_for_again(page):
    assert "immutable" in (await get(page, "/assets/page-ABC.js")).headers["cache-control"]
    for path in ("/", "/app.webmanifest", "/icon.png"):
        first = await get(page, path, accept_encoding="br, gzip")
        assert first.headers["cache-control"] == "no-cache"
        again = await get(page, path, accept_encoding="br, gzip", if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    plain = await get(page, "/")
    assert plain.body == b"plain"
    # One file, two encodings: a cache must not take one for the other.
    assert plain.headers["etag"] != (await get(page, "/", accept_encoding="gzip")).headers["etag"]


async def test_only_the_files_of_the_page_may_run(page):
    policy = (await get(page, "/")).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert (await get(page, "/app.webmanifest")).headers["content-type"] == "application/manifest+json"
