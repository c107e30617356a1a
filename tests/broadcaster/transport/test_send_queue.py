"""The queue of a slow client, below the watermark and above it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from legato.broadcaster.clients.figures import ConnectionFigures
from legato.broadcaster.transport.frames import payloads, split, text_frame
from legato.broadcaster.transport.send_queue import MergingSendQueue, SendQueue
from legato.protocol import stream
from legato.protocol.session import Session
from tests.broadcaster.conftest import APP

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNEL = "x"
SUBSCRIBE = {"channel": CHANNEL, "merge_tokens": True}


def token(index: int) -> bytes:
    return text_frame(stream.TokenReceived(7, "m", f"{index}.", index).frame(CHANNEL))


def tokens(*indexes: int) -> bytes:
    return b"".join(map(token, indexes))


def heard(data: bytes) -> list[tuple[int, int]]:
    """The index and the number of the tokens of each frame."""
    found = [json.loads(json.loads(payload)["data"]) for payload in payloads(data)]
    return [(one["tokenIndex"], one.get("tokenCount", 1)) for one in found]


@pytest.fixture
def session() -> Session:
    session = Session(APP, "1.1", 0.0)
    session.receive(msgspec.json.encode({"event": "pusher:subscribe", "data": SUBSCRIBE}), 0)
    return session


def queue(session: Session, *before: bytes) -> MergingSendQueue:
    earlier = SendQueue(10)
    for data in before:
        earlier.put(data)
    return MergingSendQueue(session, ConnectionFigures(), earlier)


def test_frames_are_taken_in_order_up_to_a_limit():
    waiting = SendQueue(10)
    assert [waiting.put(data) for data in (b"abc", b"de", b"fgh")] == [3, 5, 8]
    assert (len(waiting), waiting.limit) == (3, 10)
    assert (waiting.take(4), waiting.size) == (b"abcde", 3)
    assert (waiting.take(), waiting.size, len(waiting)) == (b"fgh", 0, 0)


def test_what_waited_before_is_merged_as_what_follows(session):
    waiting = queue(session, tokens(0, 1), tokens(2))
    assert waiting.put(tokens(3, 4)) == waiting.size < len(tokens(0, 1))
    assert waiting._figures.merged_tokens == 4
    assert len(waiting) == 1
    assert heard(waiting.take()) == [(0, 5)]
    assert (waiting.size, len(waiting)) == (0, 0)


def test_a_client_that_asks_no_longer_gets_single_tokens(session):
    waiting = queue(session, tokens(0, 1))
    session.receive(msgspec.json.encode({"event": "pusher:unsubscribe", "data": SUBSCRIBE}), 0)
    waiting.put(tokens(2, 3))
    session.receive(msgspec.json.encode({"event": "pusher:subscribe", "data": SUBSCRIBE}), 0)
    waiting.put(tokens(4, 5))
    assert heard(waiting.take()) == [(0, 2), (2, 1), (3, 1), (4, 2)]


def test_what_is_no_text_is_not_looked_into(session):
    """A pong has the content of a ping, which is the client's."""
    pong = bytes([0x8A, *token(1)[1:]])
    assert queue(session, token(0), pong, token(1)).take() == token(0) + pong + token(1)


@pytest.mark.parametrize("sizes", [(0, 1, 125), (126, 65_535), (65_536, 3)])
def test_frames_of_any_size_are_split(sizes: Sequence[int]):
    frames = [text_frame(b"x" * size) for size in sizes]
    assert split(b"".join(frames)) == [
        (frame, b"x" * size) for frame, size in zip(frames, sizes, strict=True)
    ]
