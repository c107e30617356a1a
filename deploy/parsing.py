"""The argument parser of ``legato``: what is wrong, with the nearest right word and the command's usage."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

_INVALID_CHOICE: Final = re.compile(r"invalid choice: '([^']*)'")


class CommandParser(argparse.ArgumentParser):
    """A parser that reports unknown options itself, instead of leaving them to the parser above.

    :ivar passes_on: the attribute that gets what follows ``--``; empty: it is parsed as well.
    """

    passes_on = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in the base class, but an unknown option is an error here, with the usage of this command."""
        args = list(args or ())
        passed_on: list[str] = []
        if self.passes_on and "--" in args:
            end = args.index("--")
            args, passed_on = args[:end], args[end + 1 :]
        self._refuse_unknown_options(args)
        namespace, rest = super().parse_known_args(args, namespace)
        if rest:
            self._refuse(rest)
        if self.passes_on:
            setattr(namespace, self.passes_on, passed_on)
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        """As in the base class, with the word that was perhaps meant."""
        if match := _INVALID_CHOICE.search(message):
            message += _perhaps(match[1], self._words())
        super().error(message)

    def _refuse_unknown_options(self, args: Sequence[str]) -> None:
        """Find them before parsing, in which the value of an unknown option is taken for a command."""
        subcommands = set(self._words())
        for index, arg in enumerate(args):
            if arg == "--" or arg in subcommands:
                return
            if arg.startswith("--") and not self._knows(arg):
                self._refuse(args[index : index + 1])

    def _knows(self, arg: str) -> bool:
        name = arg.partition("=")[0]
        return any(option.startswith(name) for option in self._option_string_actions)

    def _refuse(self, args: Sequence[str]) -> NoReturn:
        option = args[0].partition("=")[0]
        self.error(f"unrecognized arguments: {' '.join(args)}{_perhaps(option, self._option_string_actions)}")

    def _words(self) -> Iterator[str]:
        """The names of subcommands, and other words of which one is expected."""
        for action in self._actions:
            if not action.option_strings:
                yield from map(str, action.choices or ())


def _perhaps(word: str, known: Any) -> str:
    from legato.protocol.nearest import nearest  # noqa: PLC0415 - only a mistake needs it

    meant = nearest(word, known)
    return f"; did you mean {meant}?" if meant else ""
