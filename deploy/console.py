"""The terminal: lines of many processes, each with its name before it, written by one thread.

A terminal that is stopped (Ctrl-S) or a reader that is slow must hold up neither the processes nor their
supervisor. So whoever has a line puts it on a bounded queue, and what no longer fits is counted, not kept.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_LINE: Final = 8192
"""Bytes of one line that are shown; the rest of it is left out."""

MAX_WAITING: Final = 10_000
"""Lines that wait for the terminal."""

# Whatever a log line quotes, it does not steer the terminal: control characters are written out.
_VISIBLE: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}

_COLOURS: Final = (36, 35, 34, 33, 32, 96, 95, 94)  # ANSI foregrounds that are readable on dark and on light


def wants_colour(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether to colour what is written to ``fd``: a terminal that can, and nobody said no (no-color.org)."""
    return os.isatty(fd) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class LineSplitter:
    """Bytes in pieces of any size to lines of bounded length. Only ``MAX_LINE`` bytes are ever held."""

    def __init__(self) -> None:
        self._held = b""
        self._cut = False  # the line at hand is over-long and was shown: skip to its end

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes."""
        *whole, rest = data.split(b"\n")
        lines = []
        for piece in whole:
            if not self._cut:
                lines.append(_text(self._held + piece))
            self._held, self._cut = b"", False
        if not self._cut:
            self._held += rest
            if len(self._held) > MAX_LINE:
                lines.append(_text(self._held))
                self._held, self._cut = b"", True
        return lines

    def end(self) -> list[str]:
        """What is left when no newline comes any more."""
        held, self._held = self._held, b""
        return [_text(held)] if held else []


def _text(line: bytes) -> str:
    text = line[:MAX_LINE].decode(errors="replace").rstrip("\r").translate(_VISIBLE)
    return text + " [cut]" if len(line) > MAX_LINE else text


class Console:
    """Writes lines to ``fd``; never waits for it, except in :meth:`close`, and there for a bounded time."""

    def __init__(self, fd: int, names: Iterable[str], *, colour: bool) -> None:
        self._fd = fd
        self._width = max(map(len, names), default=0)
        self._colour = colour
        self._prefixes: dict[str, str] = {}
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    def line(self, name: str, text: str) -> None:
        """One line of the process ``name``."""
        self.print(self._prefix(name) + text)

    def print(self, text: str) -> None:
        """Text as it is, and a newline."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def close(self, seconds: float = 0.25) -> None:
        """Write what waits, for at most twice ``seconds``."""
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _prefix(self, name: str) -> str:
        if name not in self._prefixes:
            text = f"{name:<{self._width}} | "
            colour = _COLOURS[len(self._prefixes) % len(_COLOURS)]
            self._prefixes[name] = f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text
        return self._prefixes[name]

    def _write_all(self) -> None:
        open_ = True
        while open_:
            batch = [self._lines.get()]
            batch += [self._lines.get() for _ in range(self._lines.qsize())]
            open_ = None not in batch
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                batch.append(f"({dropped} lines left out: the terminal is too slow)")
            self._write("".join(f"{text}\n" for text in batch if text is not None).encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        """To the descriptor itself: a Python file's lock, held here, would block the interpreter's exit."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # some other program made the terminal non-blocking
                select.select([], [self._fd], [])
            except OSError:  # nobody reads any more
                return
