"""docs/commands.md and the command line say the same."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from legato.deploy import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "commands.md").read_text()
PARSER = cli.build_parser(cli.COMMANDS)
GENERAL = {"--help"}


def section(command: str) -> str:
    """The text below the heading of a command; before all headings for ``legato`` itself."""
    if not command:
        return TEXT.partition("\n## ")[0]
    _, found, rest = TEXT.partition(f"\n## `legato {command}`\n")
    assert found, f"docs/commands.md has no section on legato {command}"
    return rest.partition("\n## ")[0]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command with its parser, the bare one as an empty name; not those that only group others."""
    return {"": PARSER} | dict(_below(PARSER, ""))


def _below(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                if options(sub) - GENERAL or not any(
                    isinstance(inner, argparse._SubParsersAction) for inner in sub._actions
                ):
                    yield f"{name} {word}".strip(), sub
                yield from _below(sub, f"{name} {word}".strip())


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {word for action in parser._actions for word in action.option_strings if word.startswith("--")}


@pytest.mark.parametrize("command", parsers())
def test_every_option_is_documented_and_none_that_is_not_there(command: str) -> None:
    documented = set(re.findall(r"^\| .*?`(--[a-z-]+)", section(command), re.MULTILINE))
    assert documented - GENERAL == options(parsers()[command]) - GENERAL


@pytest.mark.parametrize("command", parsers())
def test_every_option_has_help(command: str) -> None:
    missing = [
        action.dest for action in parsers()[command]._actions if action.option_strings and not action.help
    ]
    assert not missing


def test_every_make_target_is_documented() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert targets == set(re.findall(r"^\| `make ([a-z]+)` \|", TEXT, re.MULTILINE))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_of_the_help_are_in_the_document(command: str) -> None:
    for example in cli.COMMANDS[command].examples.splitlines():
        assert example.strip() in section(command)
