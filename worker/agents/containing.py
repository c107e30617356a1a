"""Keeps what users' code raises from ending the process, or from looking like a stop from outside."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from legato.protocol.redis.cancellation import obey_cancellation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def contained(what: str, kind: Callable[[str], Exception]) -> Iterator[None]:
    """Around users' code: an Exception passes, and so does a cancellation of the running task.

    Anything else that is raised becomes an error of ``kind``, whose text is "``what`` raised NAME".
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            obey_cancellation()
        raise kind(f"{what} raised {type(error).__name__}") from error
