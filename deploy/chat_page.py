"""Where the built chat page is: in a checkout where ``make`` builds it, else in the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "LEGATO_DEV_PAGE"

_HERE: Final = Path(__file__).parent


def directory(environ: Mapping[str, str], package: Path = _HERE) -> Path:
    """The directory with ``index.html``; ``LEGATO_DEV_PAGE`` names another one.

    :param package: where this package is.
    :raises CommandError: there is no page.
    """
    client = package.parent / "client-js"
    checkout = (client / "build.mjs").is_file()
    if given := environ.get(VARIABLE):
        page, mend = Path(given).absolute(), f"{VARIABLE} names this directory"
    elif checkout:
        page, mend = client / "dist" / "page", "run `make setup`"
    else:
        page, mend = package / "page", f"install Legato again, or set {VARIABLE}"
    if not (page / "index.html").is_file():
        raise CommandError(f"there is no chat page in {page}: {mend}")
    return page
