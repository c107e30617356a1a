"""The examples install what the tests run them with."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from legato.broadcaster.api.page import _HEADERS

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
TESTED = ROOT / "tests" / "e2e"
CLIENT = ROOT / "client-js"
WITH_PACKAGES = sorted(path.parent.name for path in EXAMPLES.glob("*/package.json"))
WITH_REQUIREMENTS = sorted(path.parent.name for path in EXAMPLES.glob("*/requirements.txt"))
MAX_LINES = 60


def locked(folder: Path) -> dict[str, str]:
    """Package -> version that `npm ci` installs there."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    return {
        path.removeprefix("node_modules/"): package["version"]
        for path, package in packages.items()
        if path.count("node_modules/") == 1
    }


@pytest.mark.parametrize("name", WITH_PACKAGES)
def test_npm_packages_are_those_of_the_tests(name):
    package = json.loads((EXAMPLES / name / "package.json").read_text())
    wanted = package["dependencies"] | package["devDependencies"]
    # As `build-examples.mjs` takes them: what these tests do not have is that of our own page.
    for installed in (locked(EXAMPLES / name), locked(CLIENT) | locked(TESTED)):
        assert wanted == {package: installed[package] for package in wanted}


@pytest.mark.parametrize("name", WITH_REQUIREMENTS)
def test_python_packages_are_those_of_the_tests(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = {*project["dependencies"], *project["optional-dependencies"]["dev"]}
    for line in (EXAMPLES / name / "requirements.txt").read_text().splitlines():
        assert line in {re.sub(r"\[.*\]", "", each) for each in tested}


def test_there_are_such_examples():
    assert WITH_PACKAGES == ["alpine", "article", "page", "react", "vue"]
    assert WITH_REQUIREMENTS == ["django", "fastapi"]


def test_one_html_file_is_short():
    assert len((EXAMPLES / "html" / "index.html").read_text().splitlines()) < MAX_LINES


def test_what_makes_the_echo_is_the_same():
    files = {(EXAMPLES / name / "src" / "legato.js").read_text() for name in ("alpine", "react", "vue")}
    assert len(files) == 1


def test_the_page_has_the_policy_of_our_own():
    config = (EXAMPLES / "page" / "vite.config.js").read_text()
    [policy] = re.findall(r"const CSP =\n(.*?);\n\n", config, re.DOTALL)
    assert "".join(re.findall(r'"(.*)"', policy)) == _HEADERS["content-security-policy"]


def test_every_example_is_listed():
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if not path.name.startswith(("README", "_", ".")):
            assert f"]({path.name}{'/' if path.is_dir() else ''})" in listed
