"""Lists the packages and puts the built chat page into the distribution. The rest is in pyproject.toml.

The folders stand at the top of the repository and are imported below one name, ``legato``.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

FOLDERS = ("benchmarks", "broadcaster", "deploy", "protocol", "worker")
PAGE = Path("client-js", "dist", "page")
PAGE_IN_PACKAGE = Path("legato", "deploy", "page")


def require_page() -> None:
    """Stop with one line when ``make`` has not built the page."""
    if not (PAGE / "index.html").is_file():
        raise SystemExit(f"The chat page is not built: {PAGE} is missing. `make wheel` builds everything.")


class BuildWithPage(build_py):
    """Copies the page, which is not Python and not below a package, to where ``legato up`` looks for it."""

    def run(self) -> None:
        """Build; an editable installation finds the page where ``make`` builds it."""
        if self.editable_mode:
            super().run()
            return
        require_page()
        super().run()
        shutil.copytree(PAGE, Path(self.build_lib) / PAGE_IN_PACKAGE, dirs_exist_ok=True)


class SdistWithPage(sdist):
    """Refuses a distribution from which no wheel could be built: it has no Node.js sources."""

    def run(self) -> None:
        """Pack."""
        require_page()
        super().run()


setup(
    packages=[
        f"legato.{package}"
        for package in find_packages(include=[*FOLDERS, *(f"{folder}.*" for folder in FOLDERS)])
    ],
    cmdclass={"build_py": BuildWithPage, "sdist": SdistWithPage},
)
