"""The wheel: one name, all that the programs need, and a life of its own far from the source.

It is built once, from the source distribution as ``make wheel`` does it, and installed into a virtual
environment beside packages that are called as our folders are. Dependencies are those of the environment that
runs the tests.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from legato.deploy import cli
from tests.waiting import wait_until

from .screen import quiet_port, unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "broadcaster", "deploy", "protocol", "worker")
OTHERS = (*FOLDERS, "tests")
"""Distributions that somebody may have, whose packages are called like this."""

PAGE = ROOT / "client-js" / "dist" / "page"
NOT_SHIPPED = {"deploy/check-tools.sh", "deploy/Dockerfile", "deploy/systemd/install.sh"}
NOT_IN_THE_WHEEL = (
    "benchmarks/results/",
    *("deploy/compose/", "deploy/grafana/", "deploy/helm/", "deploy/laravel/"),
    *("deploy/prometheus/", "deploy/proxy/", "deploy/supervisord/"),
)
"""What is only of use in a checkout: results of benchmarks, and samples for other programs."""


class Built(NamedTuple):
    wheel: Path
    source: Path


def copy_of_the_source(place: Path) -> Path:
    """What a clone has, and the page."""
    unwanted = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in (*FOLDERS, "tests", "docs"):
        shutil.copytree(ROOT / name, place / name, ignore=unwanted)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "Makefile"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "client-js", place / "client-js", ignore=unwanted)
    return place


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert (PAGE / "index.html").is_file(), "`make setup` builds the page"
    return copy_of_the_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    done = build(source, out)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel], [packed] = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, packed)


def foreign_wheel(directory: Path, name: str) -> Path:
    """A distribution and package of this name that is not ours."""
    path = directory / f"{name}-9.0-py3-none-any.whl"
    info = f"{name}-9.0.dist-info"
    files = {
        f"{name}/__init__.py": f"raise ImportError('{name} is somebody else')\n",
        f"{name}/cli.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


class Installed:
    """A virtual environment with the wheel, and an empty directory to work in."""

    def __init__(self, place: Path) -> None:
        self.environment = place / "venv"
        self.bin = self.environment / "bin"
        self.work = place / "work"
        self.work.mkdir()
        venv.create(self.environment, with_pip=False)
        [self.packages] = self.environment.glob("lib/python*/site-packages")

    def install(self, *wheels: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--isolated", "--python", self.bin / "python", "--quiet"]
        flags = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *flags, *wheels], env=unmeasured(), check=True, timeout=100)

    def lend_dependencies(self) -> None:
        """Let it import what the tests' environment has, not our source: *.pth files there do not count."""
        paths = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        (self.packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))

    def environ(self, *programs: str) -> dict[str, str]:
        """Nothing on the PATH but the environment's own programs and these."""
        tools = self.work.with_name("-".join(("tools", *programs)))
        if not tools.exists():
            tools.mkdir()
            for program in programs:
                found = shutil.which(program)
                assert found, program
                (tools / program).symlink_to(Path(found).resolve())
        return {"PATH": f"{self.bin}:{tools}", "HOME": str(self.work)}

    def run(self, *argv: str, module: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        program = [self.bin / "python", "-P", "-m", module] if module else [self.bin / "legato"]
        return subprocess.run(
            [*program, *argv],
            cwd=self.work,
            env=self.environ() | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    made = Installed(place)
    made.install(built.wheel, *(foreign_wheel(place, name) for name in OTHERS))
    made.lend_dependencies()
    return made


def shipped(folder: str) -> set[str]:
    """What of a folder has to be in the wheel, as paths in the repository."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {name for name in found - NOT_SHIPPED if not name.startswith(NOT_IN_THE_WHEEL)}


def test_the_wheel_has_one_name_and_everything_below_it(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
        top_level = next(name for name in names if name.endswith("/top_level.txt"))
        assert archive.read(top_level) == b"legato\n"
    info = top_level.partition("/")[0]
    assert {name.partition("/")[0] for name in names} == {"legato", info}
    packages = {name for name in names if name.startswith("legato/")}
    page = {
        f"legato/deploy/page/{path.relative_to(PAGE).as_posix()}"
        for path in PAGE.rglob("*")
        if path.is_file()
    }
    expected = {f"legato/{name}" for folder in FOLDERS for name in shipped(folder)} | page
    assert packages == expected
    assert {"legato/deploy/page/index.html", "legato/deploy/legato.sample.toml"} <= expected


def test_the_source_distribution_has_what_the_wheel_is_made_of_and_no_tests(built: Built) -> None:
    """That it is enough is seen by the wheel, which is built from it."""
    with tarfile.open(built.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "client-js/dist/page/index.html", "broadcaster/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "client-js/src", "docs"))]


def test_without_the_page_nothing_is_built_and_one_line_says_why(source: Path, tmp_path: Path) -> None:
    without = tmp_path / "without"
    shutil.copytree(source, without, ignore=shutil.ignore_patterns("dist", "tests", "docs", "results"))
    done = build(without, tmp_path / "out")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    line = "The chat page is not built: client-js/dist/page is missing. `make wheel` builds everything."
    assert line in said.splitlines()
    assert "Traceback" not in said
    assert not list((tmp_path / "out").glob("*"))


def damage(packages: Path) -> list[str]:
    """Files that are not as their distribution has installed them, or that two of them own."""
    found, owner = [], dict[str, str]()
    for record in sorted(packages.glob("*.dist-info/RECORD")):
        for name, digest, _ in csv.reader(record.read_text().splitlines()):
            path = packages / name
            if name in owner:
                found.append(f"{name}: {record.parent.name} and {owner[name]}")
            owner[name] = record.parent.name
            hashed = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
            if digest and digest != f"sha256={hashed}":
                found.append(f"{name}: changed")
    return found


def test_nothing_is_overwritten_by_packages_called_as_our_folders(installed: Installed) -> None:
    assert damage(installed.packages) == []
    for name in OTHERS:
        assert "somebody else" in (installed.packages / name / "__init__.py").read_text()


def test_what_is_overwritten_would_be_seen(tmp_path: Path) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"as installed").digest()).decode().rstrip("=")
    for name, line in (("a", f"x/y.py,sha256={digest},12\n"), ("b", "x/y.py,,\n")):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        (tmp_path / f"{name}-1.dist-info" / "RECORD").write_text(line)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.py").write_text("as installed")
    assert damage(tmp_path) == ["x/y.py: b-1.dist-info and a-1.dist-info"]
    (tmp_path / "x" / "y.py").write_text("by another")
    assert damage(tmp_path) == ["x/y.py: changed", "x/y.py: b-1.dist-info and a-1.dist-info"]


def test_it_imports_its_own_files_and_not_the_source(installed: Installed) -> None:
    code = "import legato.deploy, legato.broadcaster; print(legato.deploy.__file__, legato.__path__)"
    done = subprocess.run(
        [installed.bin / "python", "-c", code],
        cwd=installed.work,
        env=installed.environ(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert str(installed.packages) in done.stdout
    assert str(ROOT) not in done.stdout


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_every_command_has_its_help(installed: Installed, command: str) -> None:
    done = installed.run(*([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: legato {command}".strip())


def test_small_commands(installed: Installed, built: Built) -> None:
    version = built.wheel.name.split("-")[1]
    assert installed.run("--version").stdout.splitlines()[0] == f"legato {version}"
    assert len(installed.run("conformance", "--list").stdout.splitlines()) > 100
    assert "kill-worker" in installed.run("chaos", "--plan", "--seed", "7").stdout
    for file, path in cli_samples().items():
        assert installed.run("sample", file).stdout == path.read_text()
    database = {"DATABASE_URL": f"sqlite:///{installed.work / 'migrated.db'}"}
    assert installed.run("migrate", **database).returncode == 0
    done = installed.run("migrate", "--check", **database)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def cli_samples() -> dict[str, Path]:
    deploy = ROOT / "deploy"
    units = ("legato-broadcaster.service", "legato-worker.service")
    return {"legato.toml": deploy / "legato.sample.toml"} | {
        unit: deploy / "systemd" / unit for unit in units
    }


@contextmanager
def up(installed: Installed) -> Iterator[int]:
    """A `legato up` without any program of the machine: its port."""
    port, said = quiet_port(1), installed.work / "up.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            [installed.bin / "legato", "up", "--port", str(port)],
            cwd=installed.work,
            env=installed.environ(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: "Ctrl-C stops it." in said.read_text() or process.poll() is not None)
            assert process.poll() is None, said.read_text()
            yield port
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, said.read_text()
        finally:
            process.kill()
            process.wait()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        return bytes(response.read())


def test_up_serves_the_page_and_conforms(installed: Installed) -> None:
    with up(installed) as port:
        html = get(f"http://127.0.0.1:{port}/")
        assert html == (PAGE / "index.html").read_bytes()
        assets = re.findall(rb"assets/[\w.-]+", html)
        for name in ("sw.js", "manifest.webmanifest", *(asset.decode() for asset in assets)):
            assert get(f"http://127.0.0.1:{port}/{name}") == (PAGE / name).read_bytes()
        assert len(assets) == 2
        app = ["--app-id", "1", "--key", "app-key", "--secret", "app-secret", "--section", "1.1"]
        done = installed.run("conformance", "--url", f"ws://127.0.0.1:{port}", *app)
        assert (done.returncode, done.stderr) == (0, "")
        assert " 0 failed" in done.stdout
    assert (installed.work / ".legato" / "legato.db").exists(), "data is where it was started"
    assert damage(installed.packages) == []


def test_bench_runs(installed: Installed) -> None:
    done = installed.run("bench", "fanout", "--quick")
    assert done.returncode == 0, done.stderr
    assert "fanout" in done.stdout


NEEDS_NODE = "Node.js 20 or newer is needed: there is no node on the PATH"


def test_what_needs_node_or_a_compiler_says_so_in_one_line(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("chaos")
    assert (done.returncode, done.stderr) == (1, f"legato chaos: {NEEDS_NODE}\n")
    done = installed.run("chaos", **installed.environ("node"), LEGATO_DATA=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        1,
        "legato chaos: npm is needed to install pusher-js, once: there is no npm on the PATH\n",
    )
    assert list(tmp_path.iterdir()) == []
    done = installed.run("--quick", "--no-pin", module="legato.benchmarks.versus")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the baseline needs a C compiler" in done.stderr


def test_chaos_installs_what_its_readers_need_outside_the_package(
    installed: Installed, tmp_path: Path
) -> None:
    """npm is asked for nothing that it has not in its cache since the modules of tests/e2e were installed."""
    small = ["--users", "1", "--readers", "1", "--nodes", "1", "--workers", "1", "--faults", "none"]
    environ = {"PATH": f"{installed.bin}:{os.environ['PATH']}", "HOME": os.environ["HOME"]}
    done = installed.run(
        "chaos", "--seed", "13", "--minutes", "0.05", *small, **environ, LEGATO_DATA=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    [directory] = tmp_path.iterdir()
    assert (directory / "node_modules" / "pusher-js" / "package.json").is_file()
    assert f"installing pusher-js into {directory} (once)\n" in done.stderr
    assert damage(installed.packages) == []
    assert not list((installed.packages / "legato").rglob("node_modules"))
