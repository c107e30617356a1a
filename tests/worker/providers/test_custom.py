"""Own providers: imported by name, called with the settings; what is wrong with one is told in one line."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from legato.protocol.settings import SettingsError
from legato.worker import cli, config

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[3] / "docs" / "worker.md"

GOOD = """
class Mine:
    def __init__(self, settings):
        self.model = settings.model
        self.region = settings.options["region"]

    async def stream(self, request):
        yield None

    async def aclose(self):
        pass
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def build(name: str = "mine:Mine") -> object:
    return cli.build(
        config.ProviderSettings(name=name, model="m1", api_key="geheim", options={"region": "eu"})
    )


def test_callable_is_given_the_settings(here: Path) -> None:
    (here / "mine.py").write_text(GOOD)
    provider = build()
    assert (provider.model, provider.region) == ("m1", "eu")


def test_module_in_a_package(here: Path) -> None:
    (here / "shop").mkdir()
    (here / "shop" / "chat.py").write_text(GOOD + "def make(settings):\n    return Mine(settings)\n")
    assert build("shop.chat:make").region == "eu"


def test_installed_modules_come_before_those_of_the_working_directory(here: Path) -> None:
    """A file that happens to be called random.py must not replace the standard library's."""
    (here / "colorsys.py").write_text(GOOD)
    with pytest.raises(SettingsError, match="colorsys has no callable Mine"):
        build("colorsys:Mine")


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "mine:Mine", "mine has no callable Mine"),
        ("Mine = 3", "mine:Mine", "mine has no callable Mine"),
        ("", "other:Mine", "other cannot be imported: ModuleNotFoundError: No module named 'other'"),
        ("import other", "mine:Mine", "ModuleNotFoundError: No module named 'other' ({here}/mine.py:1)"),
        ("def x(:", "mine:Mine", "mine cannot be imported: SyntaxError: invalid syntax (mine.py, line 1)"),
        (
            "\n1 / 0",
            "mine:Mine",
            "mine cannot be imported: ZeroDivisionError: division by zero ({here}/mine.py:2)",
        ),
        ("raise BaseException('x')", "mine:Mine", "cannot be imported: BaseException: x ({here}/mine.py:1)"),
        ("def make(settings):\n    raise SystemExit(3)", "mine:make", "mine:make failed: SystemExit: 3"),
        (
            "def make():\n    pass",
            "mine:make",
            "mine:make failed: TypeError: make() takes 0 positional arguments",
        ),
        (
            "def make(settings):\n    raise ValueError(f'bad\\nkey {settings.api_key}')",
            "mine:make",
            "mine:make failed: ValueError: bad key [hidden] ({here}/mine.py:2)",
        ),
        ("def make(settings):\n    pass", "mine:make", "what mine:make answers has no model"),
        (GOOD + "Mine.__init__ = lambda self, _: None", "mine:Mine", "has no model, the name of the model"),
        (GOOD.replace("settings.model", "''"), "mine:Mine", "has no model, the name of the model"),
        (GOOD.replace("stream", "flow"), "mine:Mine", "has no stream() as `async def` with `yield`"),
        (GOOD.replace("yield None", "return []"), "mine:Mine", "has no stream() as `async def` with `yield`"),
        (GOOD.replace("aclose", "close"), "mine:Mine", "has no aclose() as `async def`"),
        (GOOD.replace("async def aclose", "def aclose"), "mine:Mine", "has no aclose() as `async def`"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(here: Path, text: str, name: str, said: str) -> None:
    (here / "mine.py").write_text(text)
    with pytest.raises(SettingsError) as caught:
        build(name)
    line = str(caught.value)
    assert line.startswith("provider.name: ")
    assert said.format(here=here) in line
    assert "\n" not in line
    assert "geheim" not in line


def test_stream_may_be_a_function_that_answers_a_generator(here: Path) -> None:
    """Such as one with a decorator."""
    (here / "mine.py").write_text(GOOD + "\nMine.stream = lambda self, request: None")
    assert build().model == "m1"


def examples(here: Path) -> Iterator[str]:
    """Writes the files that the page shows."""
    section = PAGE.read_text().partition("\n## Your own provider\n")[2].partition("\n## ")[0]
    for name, text in re.findall(r"^```python\n# (\S+)\n(.+?)^```", section, re.MULTILINE | re.DOTALL):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
        yield name


def test_example_of_the_page_is_a_provider_that_keeps_the_contract(here: Path) -> None:
    assert list(examples(here)) == ["shop/model.py", "test_model.py"]
    assert build("shop.model:Echo").model == "m1"
    test = importlib.import_module("test_model").test_contract
    (mark,) = test.pytestmark
    for check in mark.args[1]:
        test(check)
    assert len(mark.args[1]) > 5
