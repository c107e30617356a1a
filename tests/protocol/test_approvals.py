"""Decisions on tool calls: what a request may be, and what is stored."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.approvals import (
    CALL_ID,
    MAX_APPROVAL_BYTES,
    MAX_NOTE,
    Approval,
    decode_approval,
    stored,
)
from legato.protocol.jobs import InvalidRequest

GOOD = [
    (b'{"approve":true}', Approval(approve=True)),
    (b'{"approve":false,"note":"too much"}', Approval(approve=False, note="too much")),
    (b'{"approve":true,"note":"","later":1}', Approval(approve=True)),
    (b'{"approve":true,"note":"\\ud83d"}', Approval(approve=True, note="\ufffd")),
    (
        b'{"approve":true,"note":"' + b"\\ud83d\\ude00" * MAX_NOTE + b'"}',
        Approval(approve=True, note="\U0001f600" * MAX_NOTE),
    ),
]


@pytest.mark.parametrize(("body", "approval"), GOOD, ids=lambda value: str(value)[:40])
def test_a_decision_is_read(body, approval):
    assert decode_approval(body) == approval


BAD = [
    (b"", "$"),
    (b"junk", "$"),
    (b"[]", "$"),
    (b"\xff", "$"),
    (b"[" * 5_000, "$"),
    (b"{}", "approve"),
    (b'{"approve":1}', "approve"),
    (b'{"approve":"true"}', "approve"),
    (b'{"approve":null}', "approve"),
    (b'{"approve":true,"note":1}', "note"),
    (b'{"approve":true,"note":"' + b"x" * (MAX_NOTE + 1) + b'"}', "note"),
    (b'{"approve":true}' + b" " * MAX_APPROVAL_BYTES, "$"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=lambda value: str(value)[:40])
def test_anything_else_is_refused_by_the_name_of_its_field(body, field):
    with pytest.raises(InvalidRequest) as caught:
        decode_approval(body)
    assert caught.value.field == field
    assert caught.value.reason


@given(st.binary(max_size=60))
def test_any_bytes_are_a_decision_or_an_invalid_request(body):
    try:
        read = decode_approval(body)
    except InvalidRequest:
        return
    assert isinstance(read, Approval)


@given(st.booleans(), st.text(max_size=9), st.booleans(), st.text(max_size=9), st.integers(0, 2**40))
def test_equal_decisions_begin_alike_and_others_do_not(approve, note, other, text, at):
    head, rest = stored(Approval(approve, note), at)
    assert json.loads(head + rest) == {"approve": approve, "note": note, "at": at}
    again, _ = stored(Approval(other, text), at + 1)
    assert (head + rest).startswith(again) == ((approve, note) == (other, text))


@pytest.mark.parametrize("call", ["toolu_01A", "call-1", "functions.get_weather:0", "x" * 128, "a?b#c%"])
def test_ids_that_models_give_can_be_decided(call):
    assert CALL_ID.fullmatch(call)


@pytest.mark.parametrize("call", ["", "a/b", "a b", "a\n", "\u00e4", "x" * 129, "\x7f"])
def test_other_ids_cannot(call):
    assert not CALL_ID.fullmatch(call)


def test_a_decision_is_stored_as_the_worker_reads_it():
    class Stored(msgspec.Struct, forbid_unknown_fields=True):
        approve: bool
        note: str
        at: int

    assert msgspec.json.decode(b"".join(stored(Approval(True, "ok"), 5)), type=Stored) == Stored(
        True, "ok", 5
    )
