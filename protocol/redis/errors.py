"""Errors of Redis as text for logs and for users."""

from __future__ import annotations

import re
from typing import Final

_OF_A_PIPELINE: Final = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: (.*)", re.DOTALL)
"""How redis-py rewrites an error of a pipeline: the command with its arguments, which may be a user's, then
the error's own arguments as a tuple."""

_TUPLE_OF_ONE: Final = re.compile(r"\((['\"])(.*)\1,\)", re.DOTALL)


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line; the error's type if it has no text.

    The line has no credentials and no arguments of commands: redis-py names hosts and ports in its errors,
    never passwords, and the command that it puts in front of errors of pipelines is cut off.
    """
    text = str(error)
    if error.args and (piped := _OF_A_PIPELINE.fullmatch(str(error.args[0]))):
        text = piped[1]
        if single := _TUPLE_OF_ONE.fullmatch(text):
            text = single[2]
    return " ".join(text.split()) or type(error).__name__
