import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from legato.broadcaster.transport.frames import Edges, is_utf8, payloads, plain_text, text_frame

AT_THE_EDGES = [b"x" * size for size in (0, 1, 125, 126, 127, 65_535, 65_536)]


@given(st.lists(st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES), max_size=6))
def test_concatenated_frames_are_split_into_their_payloads(messages):
    assert payloads(b"".join(text_frame(message) for message in messages)) == messages


@given(st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES))
def test_a_frame_equals_the_librarys(payload):
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


PLAIN = st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES[:-1])


def of_client(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def plain_texts(data: bytes, limit: int) -> tuple[list[bytes], int]:
    """All plain frames at the beginning of ``data``, and where they end."""
    texts, at = [], 0
    while (found := plain_text(data, at, limit)) is not None:
        text, at = found
        texts.append(text)
    return texts, at


@given(st.lists(PLAIN, max_size=6))
def test_plain_frames_of_a_client_are_read(messages):
    data = b"".join(map(of_client, messages))
    assert plain_texts(data, 65_535) == (messages, len(data))


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
def test_other_frames_are_left_to_the_library(messages, other):
    plain = b"".join(map(of_client, messages))
    assert plain_texts(plain + other + plain, 100) == (messages, len(plain))


@given(st.lists(PLAIN, min_size=1, max_size=3), st.data())
def test_an_incomplete_frame_is_left_to_the_library(messages, data):
    whole = b"".join(map(of_client, messages))
    last = len(of_client(messages[-1]))
    cut = data.draw(st.integers(1, last - 1))
    assert plain_texts(whole[:-cut], 65_535) == (messages[:-1], len(whole) - last)


SIZES = st.integers(0, 300) | st.sampled_from([65_535, 65_536, 70_000])


def made(opcode: Opcode, size: int, *, fin: bool) -> bytes:
    """Frames are delimited without looking at their content."""
    return bytes([fin << 7 | opcode]) + Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)[1:]


FRAMES = st.builds(made, st.sampled_from(list(Opcode)), SIZES, fin=st.booleans())


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 80_000), max_size=30))
def test_frame_boundaries_are_found_however_the_bytes_are_cut(frames, sizes):
    """Each part ends with a frame, or with the data received."""
    sent, ends, at = b"".join(frames), [], 0
    for frame in frames:
        ends.append((ends or [0])[-1] + len(frame))
    edges, found = Edges(), []
    for size in [*sizes, len(sent)]:
        data = sent[at : at + size]
        place = 0
        while place < len(data):
            place = edges.next(data, place)
            found.append(at + place)
        at += len(data)
    reads = {min(sum(sizes[:count]), len(sent)) for count in range(1, len(sizes) + 1)}
    assert set(ends) <= set(found) <= set(ends) | reads
    assert found == sorted(set(found))


@given(st.binary(max_size=40), st.integers(1, 5))
def test_finding_boundaries_in_any_bytes_always_advances(data, size):
    edges = Edges()
    for at in range(0, len(data), size):
        part, place = data[at : at + size], 0
        while place < len(part):
            before, place = place, edges.next(part, place)
            assert before < place <= len(part)


@given(st.text())
def test_valid_utf8_is_accepted(text):
    assert is_utf8(text.encode("utf-8", "replace"))


@pytest.mark.parametrize(
    "data", [b"\xff", b"ok \xc3", b"\xa9", b"\xed\xa0\xbd", b"\xc0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"]
)
def test_invalid_utf8_is_detected(data):
    assert not is_utf8(data)
