"""docs/commands.md and the command line say the same."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from deploy import cli

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
    """Every command with its parser, the bare one as an empty name."""
    found = {"": PARSER}
    for action in PARSER._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


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
