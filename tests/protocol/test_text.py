from __future__ import annotations

import itertools
import json
import re
import sys

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from legato.protocol.text import REPLACEMENT, Joiner, decode_json, replace_lone_escapes, well_formed

SURROGATES = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)
TEXTS = st.text(SURROGATES | st.sampled_from('a\\"ué\U0001f600\ufffd\ue000'))
LONE = re.compile("([\ud800-\udbff])([\udc00-\udfff])|[\ud800-\udfff]")
_strings = msgspec.json.Decoder(str)


def expected(text: str) -> str:
    """By the definition of UTF-16 (RFC 2781), written another way than the code does it."""

    def one(match: re.Match[str]) -> str:
        if match[1] is None:
            return REPLACEMENT
        return chr(0x10000 + (ord(match[1]) - 0xD800) * 0x400 + ord(match[2]) - 0xDC00)

    return LONE.sub(one, text)


@given(TEXTS)
@example("\ud83d\ude00")
@example("\ude00\ud83d")
@example("\ud83d\ud83d\ude00\ude00")
def test_pairs_are_joined_and_lone_surrogates_are_replaced(text):
    assert well_formed(text) == expected(text)


@given(TEXTS, st.lists(st.integers(0, 40)))
@example("\ud83d\ude00", [1])
@example("a\ud83d", [1, 1])
def test_any_split_of_a_text_gives_the_same_text(text, cuts):
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    joiner = Joiner()
    pieces = [joiner.feed(text[begin:end]) for begin, end in itertools.pairwise(bounds)]
    for piece in pieces:
        piece.encode()
    assert "".join(pieces) + joiner.rest() == expected(text)


def test_only_a_half_at_the_end_waits():
    joiner = Joiner()
    assert [joiner.feed(piece) for piece in ("a\ud83d", "", "\ude00b", "\ude00", "é")] == [
        "a",
        "",
        "\U0001f600b",
        REPLACEMENT,
        "é",
    ]
    assert joiner.rest() == ""
    assert joiner.feed("\ud83d") == ""
    assert [joiner.rest(), joiner.rest()] == [REPLACEMENT, ""]


@given(st.dictionaries(TEXTS, TEXTS, max_size=4), st.booleans())
def test_json_with_halves_is_read_as_python_reads_it_but_well_formed(value, upper):
    body = json.dumps(value)
    if upper:  # an escape may be spelled either way; the letter u may not
        body = re.sub(r"\\(?:u([0-9a-f]{4})|.)", _upper, body, flags=re.DOTALL)
    wanted = {well_formed(name): well_formed(text) for name, text in value.items()}
    decoder = msgspec.json.Decoder(dict[str, str])
    assert decode_json(decoder, body) == decode_json(decoder, body.encode()) == wanted
    repaired = replace_lone_escapes(body.encode())
    assert len(repaired) == len(body)
    assert decoder.decode(repaired) == wanted


def _upper(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else "\\u" + match[1].upper()


@given(
    st.binary()
    | st.lists(st.sampled_from([b"\\", b"u", b"d83d", b"\\ud83d", b"\\ude00", b'"'])).map(b"".join)
)
def test_any_bytes_keep_their_length_and_are_repaired_once(body):
    repaired = replace_lone_escapes(body)
    assert len(repaired) == len(body)
    assert replace_lone_escapes(repaired) == repaired


def test_a_backslash_that_is_escaped_escapes_nothing():
    assert replace_lone_escapes(rb'"\\ud83d \\\ud83d"') == rb'"\\ud83d \\\ufffd"'


@pytest.mark.parametrize(
    "escape", [b"\\ud83d", b"\\ude00", b"\\ud83dx", b"\\ud83d\\ude00", b"\\\\ud83d", b"\\n"]
)
def test_no_python_code_runs_for_each_escape(escape):
    """Ten thousand of them may be in one message, and nobody else is served while it is decoded."""

    def calls(count: int) -> int:
        seen = []
        body = b'["' + escape * count + b'\\ud83d"]'
        sys.setprofile(lambda *about: seen.append(about[1]))
        try:
            replace_lone_escapes(body)
        finally:
            sys.setprofile(None)
        return len(seen)

    assert calls(1000) == calls(10)


def test_a_string_with_halves_is_decoded_too():
    assert decode_json(_strings, '"\ud83d\ude00 \ude00"') == f"\U0001f600 {REPLACEMENT}"


@pytest.mark.parametrize("body", [b"", b"{", b'"\\ud83d', b'"\\u12"', b"1", b'"\xff"', '"\\ud83d'])
def test_what_is_no_such_json_is_refused_as_before(body):
    with pytest.raises((msgspec.DecodeError, UnicodeError)):
        decode_json(_strings, body)
