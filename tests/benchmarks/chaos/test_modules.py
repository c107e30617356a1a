"""Where the readers' pusher-js is, and what is said when Node.js or npm is missing or fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import tests.e2e
from legato.benchmarks.chaos import modules
from legato.benchmarks.chaos.errors import ChaosError

E2E = Path(tests.e2e.__file__).parent
NODE = 'echo "${FAKE_NODE-v20.1.0}"'
NPM = (
    'echo "$@" >> "$FAKE_LOG"; '
    '[ -z "$FAKE_FAILS" ] || { echo "npm error: no network" >&2; echo more >&2; exit 1; }; '
    'for last; do :; done; pusher="$last/node_modules/pusher-js"; '
    'mkdir -p "$pusher"; touch "$pusher/package.json"'
)
"""npm's last argument is the directory."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Programs that only seem to be Node.js and npm."""
    for name, script in (("node", NODE), ("npm", NPM)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(tmp_path / "home"), "FAKE_LOG": str(tmp_path / "log")}


class Said(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def refusal(environ: dict[str, str], given: str | None = None) -> str:
    with pytest.raises(ChaosError) as caught:
        modules.pusher_js(given, environ, Said())
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_npm_fills_a_directory_once(environ: dict[str, str], tmp_path: Path) -> None:
    said = Said()
    directory = modules.pusher_js(None, environ, said)
    assert directory.parent == tmp_path / "home" / ".cache" / "legato"
    assert said == [f"installing pusher-js into {directory} (once)"]
    assert {path.name for path in directory.iterdir()} == {
        "node_modules",
        "package.json",
        "package-lock.json",
    }
    assert (directory / "package-lock.json").read_bytes() == (
        modules.MANIFEST / "package-lock.json"
    ).read_bytes()
    assert modules.pusher_js(None, environ, said) == directory
    assert len(said) == 1
    [arguments] = (tmp_path / "log").read_text().splitlines()
    assert arguments.startswith("ci --ignore-scripts ")
    assert list(directory.parent.iterdir()) == [directory], "nothing temporary is left"


def test_another_lock_file_is_another_directory(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = modules.pusher_js(None, environ, Said())
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "package-lock.json").write_text("{}")
    monkeypatch.setattr(modules, "MANIFEST", tmp_path / "node")
    assert modules.pusher_js(None, environ, Said()) != directory


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        ({"LEGATO_DATA": "{}/data", "XDG_CACHE_HOME": "{}/cache"}, "data"),
        ({"XDG_CACHE_HOME": "{}/cache"}, "cache/legato"),
        ({"XDG_CACHE_HOME": "relative"}, "home/.cache/legato"),
    ],
)
def test_the_place_is_the_users(
    environ: dict[str, str], tmp_path: Path, extra: dict[str, str], place: str
) -> None:
    extra = {name: value.format(tmp_path) for name, value in extra.items()}
    assert modules.pusher_js(None, environ | extra, Said()).parent == tmp_path / place


def test_two_at_once_use_what_the_faster_one_has_made(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = modules._npm_ci

    def slower(npm: str, directory: Path, environ: dict[str, str]) -> None:
        real(npm, directory, environ)
        monkeypatch.setattr(modules, "_npm_ci", real)
        modules.pusher_js(None, environ, Said())

    monkeypatch.setattr(modules, "_npm_ci", slower)
    directory = modules.pusher_js(None, environ, Said())
    assert modules._has_pusher(directory)
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    assert list(directory.parent.iterdir()) == [directory]


@pytest.mark.parametrize(("version", "shown"), [("v18.19.0", "v18.19.0"), ("", "of no version"), ("x", "x")])
def test_a_node_that_is_too_old(environ: dict[str, str], version: str, shown: str) -> None:
    assert refusal(environ | {"FAKE_NODE": version}).endswith(f"/bin/node is {shown}")


def test_a_node_that_does_not_run(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "node").write_bytes(b"\0")
    assert "node --version fails: " in refusal(environ)


def test_programs_that_are_missing(environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {"PATH": str(tmp_path / "bin")}
    (tmp_path / "bin" / "npm").unlink()
    assert refusal(environ) == "npm is needed to install pusher-js, once: there is no npm on the PATH"
    (tmp_path / "bin" / "node").unlink()
    assert refusal(environ) == "Node.js 20 or newer is needed: there is no node on the PATH"


def test_an_npm_that_fails_leaves_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    line = refusal(environ | {"FAKE_FAILS": "1"})
    assert line == "npm cannot install pusher-js: npm error: no network"
    assert list((tmp_path / "home" / ".cache" / "legato").iterdir()) == []


def test_an_npm_that_never_ends(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(command: list[str], seconds: float, _environ: object) -> subprocess.CompletedProcess[str]:
        if "ci" in command:
            raise subprocess.TimeoutExpired(command, seconds)
        return subprocess.CompletedProcess(command, 0, "v20.0.0", "")

    monkeypatch.setattr(modules, "_run", never)
    assert refusal(environ) == "npm has not installed pusher-js within 300 s"


def test_a_place_that_cannot_be_used(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(environ | {"LEGATO_DATA": str(tmp_path / "file")}).endswith(" cannot be made: File exists")
    directory = modules.pusher_js(None, environ, Said())
    (directory / "node_modules" / "pusher-js" / "package.json").unlink()
    assert refusal(environ).endswith(f"{directory} cannot be made: Directory not empty")


def test_a_directory_that_is_given_is_used_as_it_is(environ: dict[str, str], tmp_path: Path) -> None:
    assert modules.pusher_js(str(E2E), environ, Said()) == E2E.resolve()
    assert not (tmp_path / "log").exists()
    line = f"--modules {tmp_path}: there is no node_modules/pusher-js in this directory"
    assert refusal(environ, str(tmp_path)) == line


def test_programs_do_not_get_our_secrets(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "node").write_text('#!/bin/sh\nenv > "$FAKE_LOG"\necho v20.0.0\n')
    modules.pusher_js(str(E2E), environ | {"LEGATO_APP_SECRET": "hush"}, Said())
    assert "hush" not in (tmp_path / "log").read_text()


def test_the_lock_file_names_the_version_that_the_tests_use_and_no_registry() -> None:
    lock = json.loads((modules.MANIFEST / "package-lock.json").read_text())
    theirs = json.loads((E2E / "package-lock.json").read_text())
    for name in ("node_modules/pusher-js", "node_modules/tweetnacl"):
        assert lock["packages"][name]["integrity"] == theirs["packages"][name]["integrity"]
    assert not any("resolved" in package for package in lock["packages"].values())
