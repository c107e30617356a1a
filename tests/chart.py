"""Renders the Helm chart for the tests: ``python -m tests.chart`` after each change to it.

Helm is not among Debian's packages, and is too large to be built whenever tests run. So what it renders is
kept, with a digest of what it was rendered from, and ``tests/deploy/test_chart.py`` reads that. ``--check``
changes nothing, and fails if there is something to change.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "deploy" / "helm" / "legato"
CASES: Final = ROOT / "tests" / "deploy" / "chart"
NAMES: Final = tuple(sorted(path.name.partition(".")[0] for path in CASES.glob("*.values.yaml")))
KUBERNETES: Final = "1.27.0"
"""The oldest version that Chart.yaml allows."""


def values(name: str) -> Path:
    """The values of a case."""
    return CASES / f"{name}.values.yaml"


def rendered(name: str) -> Path:
    """What Helm makes of it."""
    return CASES / f"{name}.rendered.yaml"


def digest(name: str) -> str:
    """Of all that a case is rendered from."""
    found = hashlib.sha256()
    for path in (*sorted(path for path in CHART.rglob("*") if path.is_file()), values(name)):
        found.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def head(name: str) -> str:
    """The first lines of a rendered file."""
    return f"# Made by `python -m tests.chart`: do not change it.\n# {digest(name)}\n"


def _helm(*arguments: str | Path) -> str:
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def main(arguments: list[str]) -> None:
    """Lint the chart and render all cases."""
    if not shutil.which("helm"):
        raise SystemExit("helm is missing: `go install helm.sh/helm/v3/cmd/helm@v3.16.4` builds it")
    options = ("--kube-version", KUBERNETES, "--namespace", "chat")
    stale = []
    for name in NAMES:
        _helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", values(name))
        text = head(name) + _helm("template", "legato", CHART, *options, "--values", values(name))
        if not rendered(name).exists() or rendered(name).read_text() != text:
            stale.append(name)
            if "--check" not in arguments:
                rendered(name).write_text(text)
    if stale and "--check" in arguments:
        raise SystemExit(f"rendered otherwise: {', '.join(stale)}; run python -m tests.chart")
    print(f"{len(NAMES)} cases, {len(stale)} changed")  # noqa: T201 - for who runs it


if __name__ == "__main__":
    main(sys.argv[1:])
