"""pusher-js for the readers: npm installs it once, into a directory of the user's.

The package brings ``node/package-lock.json``, which fixes every version with its hash. The directory is named
for that file, so that another version of Legato does not use what this one has installed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import ChaosError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MANIFEST: Final = Path(__file__).with_name("node")
"""Where ``package.json`` and ``package-lock.json`` are."""

OLDEST_NODE: Final = 20
INSTALL_SECONDS: Final = 300
VERSION_SECONDS: Final = 30

NPM_CI: Final = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")


def pusher_js(given: str | None, environ: Mapping[str, str], say: Callable[[str], None]) -> Path:
    """The directory with ``node_modules/pusher-js``: the one ``given``, else our own, filled at first use.

    :param say: told that something is being installed.
    :raises ChaosError: Node.js or npm is missing, or npm fails.
    """
    _check_node(environ)
    if given is not None:
        if not _has_pusher(Path(given)):
            raise ChaosError(f"--modules {given}: there is no node_modules/pusher-js in this directory")
        return Path(given).resolve()
    directory = _directory(environ)
    if not _has_pusher(directory):
        _install(directory, environ, say)
    return directory


def _check_node(environ: Mapping[str, str]) -> None:
    node = shutil.which("node", path=environ.get("PATH", ""))
    if node is None:
        raise ChaosError(f"Node.js {OLDEST_NODE} or newer is needed: there is no node on the PATH")
    try:
        version = _run([node, "--version"], VERSION_SECONDS, environ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChaosError(f"{node} --version fails: {error}") from error
    match = re.match(r"v(\d+)\.", version)
    if match is None or int(match[1]) < OLDEST_NODE:
        raise ChaosError(f"Node.js {OLDEST_NODE} or newer is needed: {node} is {version or 'of no version'}")


def _has_pusher(directory: Path) -> bool:
    try:
        return (directory / "node_modules" / "pusher-js" / "package.json").is_file()
    except OSError:  # one that this user may not read
        return False


def _directory(environ: Mapping[str, str]) -> Path:
    """Ours: below ``LEGATO_DATA``, else below the user's cache directory."""
    lock = hashlib.sha256((MANIFEST / "package-lock.json").read_bytes()).hexdigest()
    if data := environ.get("LEGATO_DATA"):
        place = Path(data)
    elif (cache := environ.get("XDG_CACHE_HOME", "")).startswith(
        "/"
    ):  # others are invalid: its specification
        place = Path(cache, "legato")
    else:
        try:
            place = Path(environ.get("HOME") or Path.home(), ".cache", "legato")
        except RuntimeError as error:
            raise ChaosError("the user has no home directory: set LEGATO_DATA") from error
    return place.absolute() / f"chaos-readers-{lock[:12]}"


def _install(directory: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Fill ``directory``: whole or not at all, and several runs may do so at the same time."""
    npm = shutil.which("npm", path=environ.get("PATH", ""))
    if npm is None:
        raise ChaosError("npm is needed to install pusher-js, once: there is no npm on the PATH")
    say(f"installing pusher-js into {directory} (once)")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as temporary:
            made = Path(temporary, "made")
            shutil.copytree(MANIFEST, made)
            _npm_ci(npm, made, environ)
            _put_in_place(made, directory)
    except OSError as error:
        raise ChaosError(f"{directory} cannot be made: {error.strerror or 'copying fails'}") from error


def _npm_ci(npm: str, directory: Path, environ: Mapping[str, str]) -> None:
    command = [npm, *NPM_CI, "--prefix", str(directory)]
    try:
        done = _run(command, INSTALL_SECONDS, environ)
    except subprocess.TimeoutExpired as error:
        raise ChaosError(f"npm has not installed pusher-js within {INSTALL_SECONDS} s") from error
    if done.returncode or not _has_pusher(directory):
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ChaosError(f"npm cannot install pusher-js: {said[0]}")


def _put_in_place(made: Path, directory: Path) -> None:
    try:
        made.rename(directory)
    except OSError:
        if not _has_pusher(directory):  # else another run was faster
            raise


def _run(command: list[str], seconds: float, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program. Settings of Legato, which may be secrets, are none of its business."""
    kept = {name: value for name, value in environ.items() if not name.startswith("LEGATO_")}
    return subprocess.run(  # noqa: S603 - node and npm of the PATH
        command,
        env=kept | {"NODE_ENV": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds,
    )
