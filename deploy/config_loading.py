"""Loads the settings of both programs, as they would themselves, for ``legato config``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from legato.protocol.settings import SettingsError

from . import env_file, logs, secret_files
from .config_options import PROGRAMS
from .parsing import CommandParser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


class LoadedSettings(NamedTuple):
    """The settings of one program.

    :ivar settings: of ``legato.PROGRAM.config``; None if they are wrong.
    :ivar sources: where those come from that are not the default.
    :ivar error: what is wrong, or empty.
    """

    program: str
    settings: Any
    sources: Mapping[str, str]
    error: str = ""


def load(args: argparse.Namespace, environ: Mapping[str, str]) -> list[LoadedSettings]:
    """The settings of ``args.program``, or of both programs."""
    programs = (args.program,) if args.program else PROGRAMS
    return [_load_one(program, args, environ) for program in programs]


def _load_one(program: str, args: argparse.Namespace, environ: Mapping[str, str]) -> LoadedSettings:
    sources: dict[str, str] = {}
    options, files = _options(program, args), args.secret_files
    try:
        if options.env_file:
            env_file.apply(options.env_file, environ := dict(environ))
            files |= secret_files.apply(environ)
        loaded = importlib.import_module(f"legato.{program}.config").load(options, environ, sources)
        logs.check_level(loaded.log.level)
    except SettingsError as error:
        return LoadedSettings(program, None, {}, str(error))
    return LoadedSettings(program, loaded, {key: files.get(name, name) for key, name in sources.items()})


def _options(program: str, args: argparse.Namespace) -> argparse.Namespace:
    """What the program's own parser makes of its options; ``--config`` there wins."""
    parser = CommandParser(prog=f"legato {program}")
    importlib.import_module(f"legato.{program}.options").add_arguments(parser)
    options = parser.parse_args(args.options)
    options.config = options.config or args.config
    return options
