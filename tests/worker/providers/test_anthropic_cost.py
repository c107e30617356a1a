"""What decoding a piece of Claude's text costs, counted in Python instructions: the same under any load.

Measured with Python 3.11: 344 instructions where only text counts, 430 where the blocks are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.worker.providers.anthropic_content import ContentReader
from legato.worker.providers.anthropic_events import StreamDecoder
from tests.broadcaster.test_fan_out_cost import instructions
from tests.worker.providers import sse_server as sse

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = 354
COLLECTED = 445

PIECES = 100
"""Pieces of text that are counted; as many come before."""


def event(step: sse.Step) -> bytes:
    """The event of a step, without HTTP."""
    return sse.body_of([sse.STREAM, step, sse.EOF_])


def cost(decoder: Callable[[], StreamDecoder]) -> float:
    """Instructions for one more piece of text, which arrives alone."""
    begin, piece = event(sse.START) + event(sse.BLOCK), event(sse.text("word "))

    def decode(count: int) -> None:
        stream = decoder()
        assert sum(1 for _ in stream.feed(begin)) == 2
        assert sum(len(list(stream.feed(piece))) for _ in range(count)) == count

    instructions(lambda: decode(1))  # what is done once per process
    return (instructions(lambda: decode(2 * PIECES)) - instructions(lambda: decode(PIECES))) / PIECES


def test_piece_of_text_of_a_plain_reply() -> None:
    assert cost(StreamDecoder) <= PLAIN


def test_piece_of_text_whose_block_is_kept() -> None:
    assert cost(lambda: StreamDecoder(ContentReader())) <= COLLECTED
