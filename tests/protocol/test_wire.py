import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol import wire
from legato.protocol.wire import Envelope, EnvelopeError

IDS = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=64)
SOCKETS = st.from_regex(r"[0-9]{1,9}\.[0-9]{1,10}", fullmatch=True)


@given(
    payload=st.binary(),
    except_socket_id=st.none() | SOCKETS,
    stream=st.none() | st.tuples(IDS, st.integers(0, 10**6)),
    command=st.sampled_from([("",), (wire.TERMINATE,), (wire.END, "complete"), (wire.CACHED, "17")]),
)
def test_an_envelope_survives_the_bus(payload, except_socket_id, stream, command):
    envelope = Envelope(payload, except_socket_id, stream, *command)
    assert wire.decode_envelope(wire.encode_envelope(envelope)) == envelope


@given(st.binary(), IDS, st.integers(0, 10**6))
def test_a_token_is_encoded_as_any_envelope(frame, message_id, index):
    envelope = Envelope(frame, stream=(message_id, index))
    assert wire.encode_token(frame, message_id, index) == wire.encode_envelope(envelope)


def test_an_ordinary_event_costs_one_byte():
    assert wire.encode_envelope(Envelope(b"{}")) == b"\n{}"


@pytest.mark.parametrize("data", [b"", b"{}", b"1.2;m\n{}", b";m;x;\n{}", b"\xff;;;\n{}", b"a;b;c;d;e\n"])
def test_what_is_not_an_envelope_is_refused(data):
    with pytest.raises(EnvelopeError):
        wire.decode_envelope(data)


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(data):
    try:
        envelope = wire.decode_envelope(data)
    except EnvelopeError:
        return
    assert data.endswith(envelope.payload)


def test_all_keys_of_a_channel_share_one_slot():
    tags = {
        re.search(r"\{(.*?)\}", key)[1]
        for key in (
            wire.message_key("1", "private-x", "m"),
            wire.log_key("1", "private-x", "m"),
            wire.active_key("1", "private-x"),
            wire.ended_key("1", "private-x"),
            wire.bus_channel("1", "private-x"),
            wire.subscriptions_key("1", "private-x"),
            wire.users_key("1", "private-x"),
            wire.members_key("1", "private-x"),
            wire.cache_key("1", "private-x"),
        )
    }
    assert tags == {"1:private-x"}


def test_all_keys_of_a_queue_share_one_slot():
    keys = (wire.jobs_key("q"), wire.dead_key("q"), wire.queued_mark("q", "m"), wire.fair_key("q", "turns"))
    assert {re.search(r"\{(.*?)\}", key)[1] for key in keys} == {"q"}


def test_no_two_names_collide():
    names = [
        wire.jobs_key("q"),
        wire.dead_key("q"),
        wire.queued_mark("q", "m"),
        wire.fair_key("q", "owners"),
        wire.fair_key("q", "waiting"),
        wire.message_key("1", "c", "m"),
        wire.log_key("1", "c", "m"),
        wire.active_key("1", "c"),
        wire.ended_key("1", "c"),
        wire.bus_channel("1", "c"),
        wire.idempotency_key("1", "c", "m"),
        wire.subscriptions_key("1", "c"),
        wire.users_key("1", "c"),
        wire.members_key("1", "c"),
        wire.cache_key("1", "c"),
        wire.occupied_key("1"),
        wire.lease_key("n"),
        wire.entries_key("n"),
        wire.connections_key("n"),
        wire.backoff_key("n"),
        wire.worker_key("n"),
        wire.order_key("n"),
        wire.QUEUES_KEY,
        wire.WORKERS_KEY,
        wire.PAUSED_KEY,
        *wire.cancel_flags("m"),
    ]
    assert len(set(names)) == len(names)


def test_both_spellings_of_the_cancel_flag():
    assert wire.cancel_flags("abc") == ("stream_cancel:{abc}", "stream_cancel:abc")


def test_log_entries_are_in_order_and_the_final_marker_is_behind_them():
    ids = [wire.log_entry_id(0), wire.log_entry_id(1), wire.log_entry_id(10**9), wire.LOG_FINAL_ID]
    assert ids == sorted(ids, key=lambda entry: tuple(map(int, entry.split("-"))))
    assert ids[0] == "1-1"
