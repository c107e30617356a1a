"""The terminal."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.deploy import console
from legato.deploy.console import MAX_LINE, Console, LineSplitter, wants_colour
from tests.deploy.screen import finish, screen

if TYPE_CHECKING:
    from pathlib import Path

CUT = "x" * MAX_LINE + " [cut]"


def split(pieces: list[bytes]) -> list[str]:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return lines + splitter.end()


@given(st.lists(st.text(alphabet="ab é", max_size=20)), st.lists(st.integers(0, 300)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert split(pieces) == lines


@pytest.mark.parametrize("size", [1, 7, 4096, 10 * MAX_LINE])
def test_a_long_line_is_cut_and_what_follows_it_is_whole(size: int) -> None:
    data = b"x" * (3 * MAX_LINE) + b"\nnext\n" + b"x" * (2 * MAX_LINE)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert split(pieces) == [CUT, "next", CUT]


def test_only_a_bounded_part_of_an_endless_line_is_held() -> None:
    splitter = LineSplitter()
    shown = [line for _ in range(100) for line in splitter.feed(b"x" * MAX_LINE)]
    assert shown == [CUT]
    assert len(splitter._held) <= MAX_LINE


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"windows\r\n", "windows"),
        (b"no newline", "no newline"),
        (b"\x1b[2Jgone\x07\n", "\\x1b[2Jgone\\x07"),
        (b"a\tb\n", "a\tb"),
        (b"\xff\n", "�"),
        ("\x9b31m\n".encode(), "\\x9b31m"),
    ],
)
def test_a_line_is_text_that_cannot_steer_the_terminal(data: bytes, line: str) -> None:
    assert split([data]) == [line]


def test_prefixes_are_padded_to_one_width(tmp_path: Path) -> None:
    with screen(tmp_path / "out", "valkey", "broadcaster") as shown:
        shown.console.line("valkey", "one")
        shown.console.line("broadcaster", "two")
        shown.console.print("three")
    assert shown.text == "valkey      | one\nbroadcaster | two\nthree\n"


def test_colours_are_for_terminals_whose_user_did_not_decline() -> None:
    master, slave = pty.openpty()
    read, write = os.pipe()
    try:
        assert wants_colour(slave, {})
        assert not wants_colour(slave, {"NO_COLOR": "1"})
        assert not wants_colour(slave, {"TERM": "dumb"})
        assert not wants_colour(write, {})
        coloured = Console(slave, ["worker"], colour=True)
        coloured.line("worker", "hello")
        finish(coloured)
        assert os.read(master, 100) == b"\x1b[36mworker | \x1b[0mhello\r\n"
    finally:
        for fd in (master, slave, read, write):
            os.close(fd)


def test_a_terminal_that_is_stopped_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from the pipe: lines are left out, and closing takes a bounded time all the same."""
    monkeypatch.setattr(console, "MAX_WAITING", 100)
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    stuck = Console(write, [], colour=False)
    for _ in range(1000):
        stuck.print("x" * 100)
    stuck.close()
    assert stuck._thread.is_alive()
    written = drained(stuck, read)
    left_out = sum(int(number) for number in re.findall(rb"\((\d+) lines left out", written))
    # At most one batch is being written and one waits; what fits into the pipe is less than a third.
    assert left_out > 700
    assert left_out + written.count(b"x" * 100) == 1000
    os.close(read)
    os.close(write)


def drained(writer: Console, read: int) -> bytes:
    """Close it and read until its thread has ended."""
    written = b""
    while (writing := writer._thread.is_alive()) or select.select([read], [], [], 0)[0]:
        if writing:
            writer.close(0)  # it may have been full until now
        if select.select([read], [], [], 0.05)[0]:
            written += os.read(read, 65536)
    return written


def test_a_non_blocking_terminal_gets_every_line() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    writer = Console(write, [], colour=False)
    for _ in range(5000):
        writer.print("x" * 99)
    received = 0
    while received < 500_000:
        received += len(os.read(read, 65536))
    finish(writer)
    os.close(read)
    os.close(write)
    assert received == 500_000


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = Console(write, [], colour=False)
    writer.print("to nobody")
    finish(writer)
    os.close(write)
