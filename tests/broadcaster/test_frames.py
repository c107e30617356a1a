from hypothesis import given
from hypothesis import strategies as st

from broadcaster.frames import payloads, text_frame

AT_THE_EDGES = [b"x" * size for size in (0, 1, 125, 126, 127, 65_535, 65_536)]


@given(st.lists(st.binary(max_size=300) | st.sampled_from(AT_THE_EDGES), max_size=6))
def test_joined_frames_come_apart_into_what_they_were_made_of(messages):
    assert payloads(b"".join(text_frame(message) for message in messages)) == messages
