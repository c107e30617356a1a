"""Serves the files of the chat page: compressed when the page was built, cached by their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

if TYPE_CHECKING:
    import os

    from starlette.types import Scope

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self' ws: wss:; manifest-src 'self'; worker-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "vary": "Accept-Encoding",
}

_IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""For files below ``assets/``, whose names hold a hash of what is in them."""

_REVALIDATE: Final = "no-cache"

_ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}
"""Suffixes of the compressed files, best first."""

_MEDIA_TYPES: Final = {".webmanifest": "application/manifest+json", ".js": "text/javascript"}
"""Those that not every system knows."""


class Page(StaticFiles):
    """A folder whose files may have compressed ones beside them, such as ``page.js.br``.

    A browser may load nothing from elsewhere, and run no script that is not one of these files.
    """

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """See the base class. Chooses the smallest file that the browser reads."""
        asked = Headers(scope=scope)
        path = Path(full_path)
        more = _HEADERS | {"cache-control": _IMMUTABLE if path.parent.name == "assets" else _REVALIDATE}
        media_type = _MEDIA_TYPES.get(path.suffix)
        for encoding in _accepted(asked.get("accept-encoding", "")):
            packed = Path(f"{path}{_ENCODINGS[encoding]}")
            if packed.is_file():
                more["content-encoding"] = encoding
                media_type = media_type or FileResponse(path).media_type
                path, stat_result = packed, packed.stat()
                break
        response = FileResponse(path, status_code, media_type=media_type, stat_result=stat_result)
        response.headers.update(more)
        if self.is_not_modified(response.headers, asked):
            return NotModifiedResponse(response.headers)
        return response


def _accepted(header: str) -> list[str]:
    """The encodings of ``Accept-Encoding`` that there are files of, best first."""
    accepted = set()
    for item in header.lower().split(","):
        name, _, weight = item.replace(" ", "").partition(";q=")
        if weight == "" or weight.rstrip("0.") != "":
            accepted.add(name)
    return [encoding for encoding in _ENCODINGS if encoding in accepted]
