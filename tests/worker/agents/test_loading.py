"""Finding agents by their import path: every way it cannot be done is one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from legato.protocol.settings import SettingsError
from legato.worker.agents import Agent, loading
from legato.worker.agents.loading import Agents
from legato.worker.providers.scripted import Scripted
from tests.worker.support import Puppet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.agents.folder import Folder

AGENT = "from legato.worker.agents import Agent, tool\nagent = Agent(model={!r})\n"
TOOLS = """
from legato.worker.agents import Agent, tool

@tool
async def now() -> str:
    "The time."
    return "noon"

agent = Agent(tools=[now])
"""
HANDLER = "async def reply(turn):\n    yield 'hello'\n"


def refusal(paths: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Agents(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_agents_and_handlers_are_found_by_name(folder: Folder) -> None:
    folder.write("shop.py", AGENT.format("m1"))
    folder.write("deep/inner/bot.py", HANDLER)
    agents = Agents({"default": "shop:agent", "other": "deep.inner.bot:reply"})
    assert list(agents) == ["default", "other"]
    assert len(agents) == 2
    assert isinstance(agents["default"], Agent)
    assert agents["default"].model == "m1"
    assert callable(agents["other"])
    assert agents.get("third") is None


@pytest.mark.parametrize(
    "path", ["shop", "shop:", ":agent", "shop:agent:x", "shop.py:agent", "a b:c", "../x:y"]
)
def test_what_is_no_import_path_is_refused(folder: Folder, path: str) -> None:
    folder.write("shop.py", AGENT.format("m1"))
    said = refusal({"default": path})
    if path == "shop.py:agent":
        assert said.startswith("worker.agent: shop.py cannot be imported: ModuleNotFoundError")
    else:
        assert said == f"worker.agent: expected MODULE:NAME, got {path!r}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (:\n", "worker.agent: shop cannot be imported: SyntaxError: "),
        (
            "x = 1\n\nraise OSError('two\\nlines')\n",
            "worker.agent: shop cannot be imported: OSError: two lines (",
        ),
        ("import sys\nsys.exit(3)\n", "worker.agent: shop cannot be imported: SystemExit: 3 ("),
        ("raise BaseException('x')\n", "worker.agent: shop cannot be imported: BaseException: x ("),
        (
            "import asyncio\nraise asyncio.CancelledError('x')\n",
            "worker.agent: shop cannot be imported: CancelledError: x (",
        ),
        (
            "class Mute(Exception):\n    def __str__(self):\n        raise SystemExit(3)\n\nraise Mute\n",
            "worker.agent: shop cannot be imported: Mute: (",
        ),
        (
            "def __getattr__(name):\n    raise SystemExit(name)\n",
            "worker.agent: shop cannot be imported: SystemExit: ",
        ),
        (
            "async def agent():\n    yield 'x'\n",
            "worker.agent: shop:agent cannot be called with one argument: expected async def agent(turn)",
        ),
        (
            "async def agent(turn, more):\n    yield 'x'\n",
            "worker.agent: shop:agent cannot be called with one argument",
        ),
        (
            "async def agent(*, turn):\n    yield 'x'\n",
            "worker.agent: shop:agent cannot be called with one argument",
        ),
        ("import no_such_module\n", "worker.agent: shop cannot be imported: ModuleNotFoundError: No module"),
        ("x = 1\n", "worker.agent: shop has no agent"),
        ("agent = 7\n", "worker.agent: shop:agent is neither an Agent nor an async generator function"),
        ("async def agent(turn): ...\n", "worker.agent: shop:agent is neither an Agent nor an async"),
        (
            "from legato.worker.agents import Agent\nagent = Agent(max_steps=0)\n",
            "worker.agent: shop cannot be imported: AgentError: max_steps: expected 1 to 100 (",
        ),
        ("raise OSError('x' * 10_000)\n", "worker.agent: shop cannot be imported: OSError: xxx"),
    ],
)
def test_a_module_without_a_usable_agent_is_refused_in_one_line(folder: Folder, text: str, said: str) -> None:
    folder.write("shop.py", text)
    found = refusal({"default": "shop:agent"})
    assert found.startswith(said)
    assert len(found) < 1000


def test_the_line_of_the_mistake_is_told(folder: Folder) -> None:
    folder.write("shop.py", "import helper\nagent = 1\n")
    path = folder.write("helper.py", "\n\nraise OSError('no')\n")
    assert refusal({"default": "shop:agent"}).endswith(f"OSError: no ({path}:3)")


def test_the_line_is_the_users_not_one_of_python_or_a_package_that_found_the_mistake(folder: Folder) -> None:
    path = folder.write(
        "shop.py", "from legato.worker.agents import Meta\n\nPATTERN = Meta(pattern='(')\nagent = 1\n"
    )
    assert refusal({"default": "shop:agent"}).endswith(f" ({path}:3)")


def test_the_line_of_an_installed_agent_is_told_if_there_is_no_other(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.write("site-packages/bought.py", "import json\n\njson.loads('{')\n")
    monkeypatch.syspath_prepend(path.parent)
    assert refusal({"default": "bought:agent"}).endswith(f" ({path}:3)")


@pytest.mark.parametrize("parameters", ["turn", "turn, more=None", "*turns", "turn, /"])
def test_a_handler_may_have_any_parameters_that_one_argument_satisfies(
    folder: Folder, parameters: str
) -> None:
    folder.write("shop.py", f"async def reply({parameters}):\n    yield 'x'\n")
    assert callable(Agents({"default": "shop:reply"})["default"])


def test_who_interrupts_the_start_is_obeyed(folder: Folder) -> None:
    folder.write("shop.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        Agents({"default": "shop:agent"})


def test_a_module_that_is_not_there_is_refused(folder: Folder) -> None:
    said = refusal({"default": "nowhere_to_be_found:agent"})
    assert said.startswith("worker.agent: nowhere_to_be_found cannot be imported: ModuleNotFoundError: ")


def test_the_setting_of_a_further_agent_is_told(folder: Folder) -> None:
    folder.write("shop.py", "x = 1\n")
    assert refusal({"other": "shop:agent"}) == "worker.agents.other: shop has no agent"


def test_tools_over_a_provider_that_takes_none_are_refused(folder: Folder) -> None:
    folder.write("shop.py", TOOLS)
    folder.write("plain.py", AGENT.format("m"))
    agents = Agents({"default": "shop:agent"})
    agents.check(Scripted())
    with pytest.raises(SettingsError) as caught:
        agents.check(Puppet())
    assert str(caught.value) == "worker.agent: shop:agent has tools; this provider takes none"
    Agents({"default": "plain:agent"}).check(Puppet())


OF_THE_PROVIDER = "from legato.worker.agents import Agent\nagent = Agent({}=[{{'name': 'x'}}])\n"


@pytest.mark.parametrize("option", ["server_tools", "mcp_servers"])
def test_tools_of_the_provider_over_one_that_has_none_are_refused(folder: Folder, option: str) -> None:
    class Calling(Puppet):
        """Takes an agent's tools, and has none of its own, as ``openai_compatible``."""

        takes_tools = True

    folder.write("shop.py", OF_THE_PROVIDER.format(option))
    agents = Agents({"default": "shop:agent"})
    agents.check(Scripted())
    for provider in (Calling(), Puppet()):
        with pytest.raises(SettingsError) as caught:
            agents.check(provider)
        assert str(caught.value) == f"worker.agent: shop:agent has {option}; this provider takes none"


# --- reloading


def model_of(agents: Agents) -> str:
    agent = agents["default"]
    assert isinstance(agent, Agent)
    return agent.model


def test_a_reload_brings_the_new_version_and_that_of_what_it_imports(folder: Folder) -> None:
    folder.write(
        "shop.py", "import names\nfrom legato.worker.agents import Agent\nagent = Agent(model=names.N)\n"
    )
    folder.write("names.py", "N = 'm1'\n")
    agents = Agents({"default": "shop:agent"})
    folder.write("names.py", "N = 'm2'\n")
    assert model_of(agents) == "m1"
    agents.reload()
    assert model_of(agents) == "m2"


def test_a_reload_that_fails_changes_nothing(folder: Folder) -> None:
    folder.write("shop.py", AGENT.format("m1"))
    agents = Agents({"default": "shop:agent"})
    module = sys.modules["shop"]
    folder.write("shop.py", "nonsense(\n")
    with pytest.raises(SettingsError, match="SyntaxError"):
        agents.reload()
    assert model_of(agents) == "m1"
    assert sys.modules["shop"] is module


def test_a_reload_that_brings_tools_to_a_provider_that_takes_none_changes_nothing(folder: Folder) -> None:
    folder.write("shop.py", AGENT.format("m1"))
    agents = Agents({"default": "shop:agent"})
    agents.check(Puppet())
    folder.write("shop.py", TOOLS)
    with pytest.raises(SettingsError, match="has tools; this provider takes none"):
        agents.reload()
    assert model_of(agents) == "m1"


def test_python_and_installed_packages_are_not_reloaded_wherever_they_are(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container often has / as its working directory."""
    folder.write("shop.py", AGENT.format("m1"))
    Agents({"default": "shop:agent"})
    root: Any = "/"
    monkeypatch.chdir(root)
    found = loading.own_modules()
    assert "shop" in found
    assert not {"json", "asyncio", "msgspec", "pytest", "legato.worker.agents"} & found.keys()


def test_a_module_beside_the_working_directory_is_not_reloaded(folder: Folder, tmp_path: Path) -> None:
    folder.write("shop.py", AGENT.format("m1"))
    Agents({"default": "shop:agent"})
    assert loading.own_modules() == {"shop": folder.path / "shop.py"}
    assert "json" not in loading.own_modules()
