"""Finds the agents that the settings name: ``MODULE:NAME``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from legato.protocol.settings import SettingsError
from legato.worker.importing import IMPORT_PATH, import_module, is_installed, text_of, where
from legato.worker.limits import AGENT_MAX_ERROR_CHARACTERS
from legato.worker.providers.base import takes_server_tools, takes_tools

from .agent import Agent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from legato.worker.providers.base import Provider

    from .handler import HandlerTurn

    HandlerFunction = Callable[[HandlerTurn], AsyncGenerator[Any, None]]
    Answerer = Agent | HandlerFunction

DEFAULT: Final = "default"
"""The name of the agent for jobs that name none."""


class Agents(Mapping[str, "Answerer"]):
    """The agents of one process by name.

    :param paths: name -> ``MODULE:NAME``. Modules in the working directory are found, too.
    :raises SettingsError: one of them is not there. One line for the user.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = dict(paths)
        self._provider: Provider | None = None
        self._found = self._loaded()

    def __getitem__(self, name: str) -> Answerer:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def check(self, provider: Provider) -> None:
        """Check that the provider can do what the agents need, now and after each reload.

        :raises SettingsError: it takes no tools, or has none of its own.
        """
        self._provider = provider
        self._check(self._found)

    def reload(self) -> None:
        """Import everything of the working directory again, and use it for replies that begin from now on.

        :raises SettingsError: something cannot be imported. What there was is used on.
        """
        before = {name: sys.modules.pop(name) for name in own_modules()}
        try:
            self._found = self._loaded()
        except BaseException:
            sys.modules.update(before)
            raise

    def _loaded(self) -> dict[str, Answerer]:
        found = {name: _load(path, _setting(name)) for name, path in self._paths.items()}
        self._check(found)
        return found

    def _check(self, found: Mapping[str, Answerer]) -> None:
        if self._provider is None:
            return
        refused = [] if takes_tools(self._provider) else ["tools"]
        if not takes_server_tools(self._provider):
            refused += ["server_tools", "mcp_servers"]
        for name, agent in found.items():
            for option in refused:
                if isinstance(agent, Agent) and getattr(agent, option):
                    path = self._paths[name]
                    raise SettingsError(f"{_setting(name)}: {path} has {option}; this provider takes none")


def own_modules() -> dict[str, Path]:
    """The modules that come from the working directory, but are not installed: name -> file.

    Python itself may be below that directory: in a container it is often ``/``.
    """
    here = Path.cwd()
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not name.startswith(("legato.", "__")) and name != "legato":
            path = Path(file)
            if path.is_relative_to(here) and not is_installed(path):
                found[name] = path
    return found


_HERE: Final = str(Path(__file__).parent)


def _setting(name: str) -> str:
    return "worker.agent" if name == DEFAULT else f"worker.agents.{name}"


def _load(path: str, setting: str) -> Answerer:
    if not IMPORT_PATH.fullmatch(path):
        raise SettingsError(f"{setting}: expected MODULE:NAME, got {path!r}")
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name, None)
        fault = _fault(found, path)
    except KeyboardInterrupt:  # who starts the worker wants to stop it
        raise
    except BaseException as error:  # noqa: BLE001 - users never see a traceback
        said = " ".join(f"{type(error).__name__}: {text_of(error)}".split())[:AGENT_MAX_ERROR_CHARACTERS]
        raise SettingsError(f"{setting}: {module} cannot be imported: {said}{where(error, _HERE)}") from None
    if found is None:
        raise SettingsError(f"{setting}: {module} has no {name}")
    if fault:
        raise SettingsError(f"{setting}: {path} {fault}")
    answerer: Answerer = found
    return answerer


def _fault(found: object, path: str) -> str:
    """Why this cannot answer; empty if it can."""
    if isinstance(found, Agent):
        return ""
    if not inspect.isasyncgenfunction(found):
        return "is neither an Agent nor an async generator function"
    try:
        inspect.signature(found).bind("turn")
    except (TypeError, ValueError):
        return f"cannot be called with one argument: expected async def {path.rpartition(':')[2]}(turn)"
    return ""
