"""Writes the output of many processes to the terminal, each line with the process' name, in one thread.

A stopped terminal (Ctrl-S) or a slow reader must block neither the processes nor their parent. So lines go
through a bounded queue; lines that do not fit are counted and dropped.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OWN_NAME: Final = "legato"
"""The name before the lines of the parent itself."""

MAX_LINE: Final = 8192
"""Longest line in bytes; the rest is cut off."""

MAX_WAITING: Final = 10_000
"""Size of the queue in lines."""

# A quoted text must not control the terminal: control characters are escaped.
_VISIBLE: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}

_COLOURS: Final = (36, 35, 34, 33, 32, 96, 95, 94)  # ANSI foregrounds that are readable on dark and on light


def wants_colour(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether to use colours on ``fd``: a terminal with colours, without NO_COLOR (no-color.org)."""
    return os.isatty(fd) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class LineSplitter:
    """Splits bytes into lines of bounded length. Never holds more than ``MAX_LINE`` bytes."""

    def __init__(self) -> None:
        self._held = b""
        self._cut = False  # the current line was too long and has been shown: skip its rest

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
        """The last line, without a newline."""
        held, self._held = self._held, b""
        return [_text(held)] if held else []


def _text(line: bytes) -> str:
    text = line[:MAX_LINE].decode(errors="replace").rstrip("\r").translate(_VISIBLE)
    return text + " [cut]" if len(line) > MAX_LINE else text


class Console:
    """Writes lines to ``fd``. Never blocks on it, except in :meth:`close` for a bounded time."""

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
        """Write a line of the process ``name``."""
        self.print(self._prefix(name) + text)

    def print(self, text: str) -> None:
        """Write a text unchanged, with a newline."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def left_out(self, count: int) -> str:
        """The line in place of those that did not fit."""
        return f"({count} lines left out: the terminal is too slow)"

    def close(self, seconds: float = 0.25) -> None:
        """Write the queued lines, for at most twice ``seconds``."""
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
                batch.append(self.left_out(dropped))
            self._write("".join(f"{text}\n" for text in batch if text is not None).encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        """Write to the descriptor, since the lock of a Python file would block the interpreter's exit."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another program made the terminal non-blocking
                select.select([], [self._fd], [])
            except OSError:  # nobody reads any more
                return
