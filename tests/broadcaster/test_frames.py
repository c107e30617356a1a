from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from broadcaster.frames import payloads, text_frame, whole_texts

AT_THE_EDGES = [b"x" * size for size in (0, 1, 125, 126, 127, 65_535, 65_536)]


@given(st.lists(st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES), max_size=6))
def test_joined_frames_come_apart_into_what_they_were_made_of(messages):
    assert payloads(b"".join(text_frame(message) for message in messages)) == messages


@given(st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES))
def test_a_frame_is_what_the_library_makes(payload):
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


PLAIN = st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES[:-1])


def of_client(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


@given(st.lists(PLAIN, max_size=6))
def test_plain_frames_of_a_client_are_read(messages):
    assert whole_texts(b"".join(map(of_client, messages)), 65_535) == messages


BEYOND = [
    of_client(b"x" * 101),
    of_client(b"x" * 65_536),
    of_client(b"x", Opcode.BINARY),
    of_client(b"x", fin=False),
    of_client(b"", Opcode.CLOSE),
    of_client(b"", Opcode.PING),
    Frame(Opcode.TEXT, b"no mask").serialize(mask=False),
    b"\xc1" + of_client(b"x")[1:],
    b"\x81\xfe\x00\x01" + b"\0\0\0\0x",
]


@given(st.lists(PLAIN.filter(lambda payload: len(payload) <= 100), max_size=2), st.sampled_from(BEYOND))
def test_what_is_not_plain_is_left_to_the_library(messages, other):
    plain = b"".join(map(of_client, messages))
    assert whole_texts(plain + other, 100) is None
    assert whole_texts(other + plain, 100) is None


@given(st.lists(PLAIN, min_size=1, max_size=3), st.data())
def test_a_part_of_a_frame_is_left_to_the_library(messages, data):
    whole = b"".join(map(of_client, messages))
    last = len(of_client(messages[-1]))
    cut = data.draw(st.integers(1, last - 1))
    assert whole_texts(whole[:-cut], 65_535) is None
