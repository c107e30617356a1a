"""Commands whose code is among the tests: found by their place, for many a package installs ``tests``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

from .errors import CommandError

TESTS: Final = Path(__file__).parent.parent / "tests"


def command(name: str) -> Any:
    """The module ``command`` of the package ``tests/NAME``, which runs as ``legato_NAME``.

    :raises CommandError: the package is not installed.
    """
    package = f"legato_{name}"
    if package not in sys.modules:
        directory = TESTS / name
        init = directory / "__init__.py"
        spec = importlib.util.spec_from_file_location(
            package, init, submodule_search_locations=[str(directory)]
        )
        if spec is None or spec.loader is None or not init.exists():
            raise CommandError(f"the {name} suite is not installed: {directory} is missing")
        module = importlib.util.module_from_spec(spec)
        sys.modules[package] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{package}.command")
