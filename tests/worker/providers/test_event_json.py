"""JSON of a model's events: half a character is kept, everything else that is wrong is one kind of error."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from legato.worker.limits import MAX_CONTENT_DEPTH
from legato.worker.providers import event_json


class Piece(msgspec.Struct):
    text: str


PIECES: msgspec.json.Decoder[Piece] = msgspec.json.Decoder(Piece)
ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def test_half_a_surrogate_pair_is_kept_as_it_came() -> None:
    assert event_json.decode(PIECES, b'{"text": "a\\ud83d"}') == Piece("a\ud83d")
    assert event_json.decode(PIECES, b'{"text": "\\ude00", "more": 1}') == Piece("\ude00")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"text": 5}',
        b'{"text": "\\ud83d", "text": 5}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text": "\\ud83d", "more": ' + b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_what_is_wrong_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's and json's errors are subclasses with texts of their own
        event_json.decode(PIECES, data)


def test_json_nested_too_deeply_is_a_value_error_of_any_type() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        event_json.decode(ANY, b'{"a":' * 100_000)


def test_clean_json_has_no_halves_of_surrogate_pairs() -> None:
    assert event_json.clean({"\ud83d": ["\ud83d\ude00", 1, None]}) == {"\ufffd": ["😀", 1, None]}


def test_clean_json_is_not_nested_deeper_than_others_may_read() -> None:
    value: Any = {}
    for _ in range(MAX_CONTENT_DEPTH - 1):
        value = [value]
    assert event_json.clean(value) == value
    with pytest.raises(ValueError, match="nested too deeply"):
        event_json.clean([value])
