"""What a node delivers of replies, whatever the bus loses: each token once, in order, then one end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legato.protocol import healing
from legato.protocol.healing import (
    FORGET_SECONDS,
    IDLE_SECONDS,
    Healed,
    HealedChannel,
    LogReading,
    Room,
    Verdict,
)
from legato.protocol.wire import ASIDE, END, MANY, MAX_ENDED, SKIP, Envelope
from tests.tiers import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DELIVER, DROP, HOLD, ASK = Verdict.DELIVER, Verdict.DROP, Verdict.HOLD, Verdict.ASK
SKIPPED = Verdict.SKIP


def frame(index: int, name: str = "m") -> bytes:
    return f"{name}{index}".encode()


def token(index: int, name: str = "m") -> Envelope:
    return Envelope(frame(index, name), None, (name, index))


def hidden(index: int, name: str = "m") -> Envelope:
    """An entry that readers do not see."""
    return Envelope(b"", None, (name, index), SKIP)


def several(index: int) -> Envelope:
    """An entry with two frames."""
    return Envelope(b"a\nb", None, ("m", index), MANY)


def aside(index: int) -> Envelope:
    return Envelope(b"aside", None, ("m", index), ASIDE)


def end(total: int, state: str = "complete", name: str = "m") -> Envelope:
    return Envelope(state.encode(), None, (name, total), END, state)


def healed(frames: Sequence[bytes] = (), tokens: int = 0, **more: bool) -> Healed:
    return Healed(tuple(frames), tokens, **more)


def log(first: int, total: int, state: str = "") -> LogReading:
    """All that there is from ``first`` on."""
    frames = [frame(index) for index in range(first, total)]
    return LogReading(first, frames, (state, state.encode()) if state else None)


@pytest.fixture
def room() -> Room:
    return Room(1_000)


@pytest.fixture
def channel(room) -> HealedChannel:
    """One that nothing streamed on when it was opened."""
    opened = HealedChannel(room, 0)
    opened.sync({}, {}, 0)
    return opened


def takes(channel: HealedChannel, *envelopes: Envelope) -> list[Verdict]:
    return [channel.take(envelope, 0) for envelope in envelopes]


def test_entry_with_several_frames_is_one_entry(channel):
    over = Envelope(b"c\nd", None, ("m", 3), END, "complete")
    assert takes(channel, several(0), token(1), several(2), several(2), over) == [
        *(Verdict.DELIVER_LINES, DELIVER, Verdict.DELIVER_LINES, DROP, Verdict.DELIVER_LINES)
    ]
    assert takes(channel, several(1)) == [DROP]


def test_held_entry_with_several_frames_follows_what_was_missing(channel):
    assert takes(channel, token(0), several(2), end(3)) == [DELIVER, ASK, HOLD]
    assert channel.read("m", log(1, 2), 0) == healed((frame(1), b"a\nb", b"complete"), 1)


def test_what_comes_in_order_is_delivered_and_forgotten_after_the_end(channel):
    assert takes(channel, aside(0), token(0), token(1), end(2)) == [DELIVER] * 4
    assert len(channel) == 0
    assert takes(channel, end(2), token(1), aside(2)) == [DROP] * 3


def test_what_was_delivered_is_dropped(channel):
    assert takes(channel, token(0), token(1), token(0), token(1), token(2)) == [DELIVER] * 2 + [DROP] * 2 + [
        DELIVER
    ]


def test_what_is_missing_is_read_and_what_comes_meanwhile_follows_it(channel, room):
    assert (
        takes(channel, token(0), token(3), token(4), aside(5), token(3), end(5))
        == [DELIVER, ASK] + [HOLD] * 4
    )
    assert channel.next("m") == 1
    assert room.used > 0
    assert channel.read("m", log(1, 4), 0) == healed(
        [frame(1), frame(2), frame(3), frame(4), b"aside", b"complete"], 3
    )
    assert (len(channel), room.used) == (0, 0)
    assert takes(channel, end(5)) == [DROP]


def test_a_message_that_begins_later_begins_at_0(channel):
    assert takes(channel, token(2)) == [ASK]
    assert channel.read("m", log(0, 3), 0) == healed([frame(0), frame(1), frame(2)], 3)


def test_before_the_channel_is_opened_a_message_begins_with_what_is_heard_first(room):
    channel = HealedChannel(room, 0)
    assert takes(channel, token(5), token(6), token(8)) == [DELIVER, DELIVER, ASK]
    channel.sync({"m": 9, "n": 2}, {}, 0)
    assert channel.next("m") == 7
    assert channel.next("n") == 2
    channel.sync({"n": 9}, {}, 0)
    assert channel.next("n") == 2
    assert channel.synced


@pytest.mark.parametrize(
    ("first", "verdict"), [(2, DELIVER), (3, DELIVER), (4, ASK)], ids=["on its way", "next", "behind a hole"]
)
def test_a_message_goes_on_where_the_first_snapshot_ends(room, first, verdict):
    channel = HealedChannel(room, 0)
    channel.sync({"m": 3}, {}, 0)
    assert takes(channel, token(first)) == [verdict]
    assert channel.next("m") == (3 if verdict is ASK else first + 1)


@pytest.mark.parametrize("first", [1, 3, None])
def test_what_may_be_on_its_way_is_known_once_it_has_come_or_the_bus_has_caught_up(room, first):
    channel = HealedChannel(room, 0)
    assert not channel.soft
    channel.sync({"m": 3}, {}, 0)
    assert channel.soft
    if first is None:
        channel.settle()
        assert takes(channel, token(2)) == [DROP]
    else:
        assert takes(channel, token(first)) == [DELIVER]
    assert not channel.soft
    assert channel.next("m") == (3 if first is None else first + 1)


def test_a_lost_end_is_made_from_the_log(channel):
    takes(channel, token(0))
    assert channel.resync([], {"m": 1}, 0) == ["m"]
    assert channel.read("m", log(1, 3, "failed"), 0) == healed([frame(1), frame(2), b"failed"], 2, ended=True)
    assert channel.resync([], {"m": 1}, 0) == []
    assert takes(channel, end(3, "failed")) == [DROP]


def test_an_end_that_came_meanwhile_is_not_counted_as_lost(channel):
    takes(channel, token(0), end(2))
    assert channel.read("m", log(1, 2, "complete"), 0) == healed([frame(1), b"complete"], 1)


def test_what_began_and_ended_unheard_is_read_from_the_start(channel):
    takes(channel, token(0), end(1))
    assert channel.resync(["n"], {"m": 1, "o": 1}, 0) == ["n", "o"]
    assert (channel.next("n"), channel.next("o"), channel.next("m")) == (0, 0, None)
    assert channel.messages == ["n", "o"]


def test_what_had_ended_before_the_channel_was_opened_stays_so(room):
    channel = HealedChannel(room, 0)
    channel.sync({}, {"before": 9}, 9)
    assert channel.resync([], {"before": 1, "later": 1}, 0) == ["later"]
    silent = HealedChannel(room, 0)
    assert not silent.synced
    assert silent.resync(["now"], {"before": 1}, 0) == ["now"]
    assert silent.resync([], {"before": 1, "later": 1}, 0) == ["later"]


@pytest.mark.parametrize("told", [True, False], ids=["told what streams", "never told"])
def test_what_has_ended_since_the_channel_was_opened_is_not_old(room, told):
    channel = HealedChannel(room, 100)
    if told:
        channel.sync({}, {"old": 5, "new": 4}, 105)
    assert channel.resync([], {"old": 6, "new": 5}, 106) == ["new"]
    assert channel.resync([], {"old": 6, "new": 5, "newer": 0}, 106) == ["newer"]


def test_what_had_ended_before_may_still_be_on_its_way(room):
    channel = HealedChannel(room, 0)
    channel.sync({}, {"m": 1}, 0)
    assert takes(channel, token(0), end(1)) == [DELIVER, DELIVER]


def test_a_reply_goes_on_while_it_is_looked_up(channel):
    takes(channel, token(0))
    assert channel.resync(["m"], {}, 0) == ["m"]
    assert takes(channel, token(1), token(2)) == [DELIVER, DELIVER]
    assert channel.read("m", log(1, 2), 0) == healed()
    assert channel.resync(["m"], {}, 0) == ["m"]
    assert takes(channel, token(3), end(4)) == [DELIVER, DELIVER]
    assert channel.read("m", log(3, 4, "complete"), 0) == healed()


def test_a_reading_from_before_another_loss_is_not_enough(channel):
    takes(channel, token(0))
    assert channel.resync(["m"], {}, 0) == ["m"]
    assert channel.resync([], {"m": 1}, 0) == []
    assert channel.read("m", log(1, 2), 0) == healed([frame(1)], 1, again=True)
    assert channel.read("m", log(2, 2, "complete"), 0) == healed([b"complete"], ended=True)


@pytest.mark.parametrize(
    ("known", "frames"),
    [(None, []), ("complete", []), ("failed", [b"failed"]), ("cancelled", [b"cancelled"])],
)
def test_a_part_is_never_passed_off_as_the_whole(channel, room, known, frames):
    takes(channel, token(0), token(5))
    reading = LogReading(1, None, None if known is None else (known, known.encode()))
    assert channel.read("m", reading, 0) == healed(frames, lost=True)
    assert (channel.next("m"), channel.messages, room.used) == (None, [], 0)
    assert takes(channel, token(6), aside(7)) == [DROP, DROP]
    assert channel.resync(["m"], {}, 0) == []


@pytest.mark.parametrize(("state", "verdict"), [("complete", DROP), ("failed", DELIVER)])
def test_the_end_of_a_reply_with_a_hole_is_told_unless_it_says_that_all_is_there(channel, state, verdict):
    takes(channel, token(5))
    channel.read("m", LogReading(0, None), 0)
    assert takes(channel, end(9, state), end(9, state)) == [verdict, DROP]
    takes(channel, token(5, "n"), end(6, state, "n"))
    told = [] if state == "complete" else [state.encode()]
    assert channel.read("n", LogReading(0, None), 0) == healed(told, lost=True)


def test_a_log_that_does_not_have_it_twice_is_given_up(channel):
    takes(channel, token(5))
    assert channel.read("m", log(0, 0), 0) == healed([], again=True)
    assert channel.read("m", log(0, 2), 0) == healed([frame(0), frame(1)], 2, again=True)
    assert channel.read("m", log(2, 2), 0) == healed([], again=True)
    assert channel.read("m", log(2, 2), 0) == healed(lost=True)


def test_what_there_is_no_room_for_is_read(room, monkeypatch):
    channel = HealedChannel(Room(4), 0)
    channel.sync({}, {}, 0)
    assert takes(channel, token(1), token(2), token(3), end(4)) == [ASK, HOLD, HOLD, HOLD]
    assert channel.read("m", log(0, 2), 0) == healed([frame(0), frame(1), frame(2)], 2, again=True)
    assert channel.read("m", log(3, 4, "complete"), 0) == healed([frame(3), b"complete"], 1, ended=True)
    takes(channel, token(1, "n"), token(2, "n"), token(3, "n"))
    ended = LogReading(0, [frame(0)], ("failed", b"failed"))
    assert channel.read("n", ended, 0) == healed([frame(0), b"failed"], 1, ended=True)


def test_what_is_dropped_for_room_before_an_end_that_is_held_asks_for_nothing_more():
    channel = HealedChannel(Room(len(b"complete")), 0)
    channel.sync({}, {}, 0)
    assert takes(channel, token(1), end(2)) == [ASK, HOLD]
    assert takes(channel, end(2)) == [HOLD]
    assert channel.read("m", log(0, 2), 0).again
    channel = HealedChannel(Room(len(b"complete")), 0)
    channel.sync({}, {}, 0)
    assert takes(channel, end(1), token(0), aside(1)) == [ASK, HOLD, HOLD]
    assert channel.read("m", log(0, 1), 0) == healed([frame(0), b"complete"], 1)


def test_closing_gives_the_room_back(channel, room):
    takes(channel, token(0), token(5))
    channel.close()
    assert (room.used, len(channel)) == (0, 0)
    assert channel.read("m", log(1, 6), 0) == healed()


class TestSilence:
    def test_a_message_that_is_silent_is_looked_up_now_and_then(self, channel):
        takes(channel, token(0))
        assert channel.idle(IDLE_SECONDS - 1) == []
        assert channel.idle(IDLE_SECONDS) == ["m"]
        assert channel.idle(2 * IDLE_SECONDS) == []
        channel.read("m", log(1, 1), 2 * IDLE_SECONDS)
        assert channel.idle(2 * IDLE_SECONDS + 1) == []
        assert channel.idle(3 * IDLE_SECONDS) == ["m"]

    def test_one_that_is_lost_is_forgotten(self, channel):
        takes(channel, token(5))
        channel.read("m", LogReading(0, None), 0)
        assert channel.idle(IDLE_SECONDS) == []
        assert len(channel) == 0
        assert takes(channel, token(6)) == [DROP]

    def test_ends_are_known_for_a_while(self, channel):
        takes(channel, token(0), end(1))
        channel.idle(FORGET_SECONDS)
        assert channel.resync([], {"m": 1}, 0) == []
        channel.idle(FORGET_SECONDS + 1)
        assert channel.resync([], {"m": 1}, 0) == ["m"]

    def test_so_are_those_before_the_channel_was_opened(self, room):
        channel = HealedChannel(room, 0)
        channel.sync({}, {"m": 1}, 0)
        channel.idle(FORGET_SECONDS + 1)
        assert channel.resync([], {"m": 1}, 0) == ["m"]

    def test_no_more_ends_are_known_than_redis_can_list_twice(self, channel):
        for number in range(2 * MAX_ENDED + 1):
            takes(channel, end(0, name=f"m{number}"))
        assert takes(channel, end(0, name="m1")) == [DROP]
        assert takes(channel, end(0, name="m0")) == [DELIVER]


class TestHidden:
    """Entries that readers do not see."""

    def test_one_in_order_counts_and_delivers_nothing(self, channel):
        told = takes(channel, token(0), hidden(1), token(2), hidden(3), end(4))
        assert told == [DELIVER, SKIPPED, DELIVER, SKIPPED, DELIVER]

    def test_one_that_comes_again_is_dropped(self, channel):
        assert takes(channel, hidden(0), hidden(0), token(1), hidden(0)) == [SKIPPED, DROP, DELIVER, DROP]

    def test_a_message_may_begin_with_one(self, room):
        opened = HealedChannel(room, 0)
        assert takes(opened, hidden(5), token(6)) == [SKIPPED, DELIVER]
        opened.sync({"n": 3}, {}, 0)
        assert takes(opened, hidden(2, "n"), token(3, "n")) == [SKIPPED, DELIVER]
        assert opened.next("n") == 4

    def test_one_behind_a_gap_is_held_and_not_delivered_afterwards(self, channel, room):
        assert takes(channel, hidden(1), token(2), hidden(3), token(4)) == [ASK, HOLD, HOLD, HOLD]
        assert channel.read("m", log(0, 1), 0) == healed([frame(0), frame(2), frame(4)], 1)
        assert (channel.next("m"), room.used) == (5, 0)

    def test_one_that_is_missing_is_read_from_the_log(self, channel):
        assert takes(channel, token(0), token(2), end(3)) == [DELIVER, ASK, HOLD]
        reading = LogReading(1, [b"", frame(2)])
        assert channel.read("m", reading, 0) == healed([frame(2), b"complete"], 1)

    def test_entries_of_nothing_else_are_progress(self, channel):
        takes(channel, token(5))
        assert channel.read("m", log(0, 0), 0).again
        assert channel.read("m", LogReading(0, [b"", b""]), 0) == healed(again=True)
        assert channel.read("m", log(2, 2), 0) == healed(again=True)
        assert channel.read("m", log(2, 2), 0).lost

    def test_one_of_a_lost_message_is_dropped(self, channel):
        takes(channel, token(5))
        channel.read("m", LogReading(0, None), 0)
        assert takes(channel, hidden(6)) == [DROP]

    def test_held_ones_are_bounded_too(self):
        channel = HealedChannel(Room(2 * healing.EMPTY_BYTES), 0)
        channel.sync({}, {}, 0)
        assert takes(channel, *(hidden(index) for index in range(1, 100))) == [ASK] + [HOLD] * 98
        assert channel._room.used == 2 * healing.EMPTY_BYTES
        assert channel.read("m", log(0, 1), 0) == healed([frame(0)], 1, again=True)
        assert (channel.next("m"), channel._room.used) == (3, 0)


# --- whatever the bus loses


class World:
    """Redis, a bus that loses what it likes, and a node that reads up. What a reader hears is kept."""

    def __init__(self, room: int) -> None:
        self.channel = HealedChannel(Room(room), 0)
        self.channel.sync({}, {}, 0)
        self.bus: deque[Envelope] = deque()
        self.logs: dict[str, list[bytes]] = {}
        self.ends: dict[str, str] = {}
        self.asked: deque[tuple[str, LogReading | None]] = deque()
        self.heard: list[bytes] = []

    def publish(self, name: str) -> None:
        self._append(name, token)

    def hide(self, name: str) -> None:
        self._append(name, hidden)

    def _append(self, name: str, kind: Callable[[int, str], Envelope]) -> None:
        if name not in self.ends:
            log = self.logs.setdefault(name, [])
            envelope = kind(len(log), name)
            self.bus.append(envelope)
            log.append(envelope.payload)

    def finish(self, name: str, state: str) -> None:
        if name in self.logs and name not in self.ends:
            self.ends[name] = state
            self.bus.append(end(len(self.logs[name]), state, name))

    def hear(self) -> None:
        if self.bus:
            envelope = self.bus.popleft()
            verdict = self.channel.take(envelope, 0)
            if verdict is DELIVER:
                self.heard.append(envelope.payload)
            elif verdict is ASK:
                self.asked.append((envelope.stream[0], None))

    def lose(self) -> None:
        """The connection breaks, with all that is on its way, and comes back."""
        self.bus.clear()
        streaming = [name for name in self.logs if name not in self.ends]
        self.asked += [
            (name, None) for name in self.channel.resync(streaming, dict.fromkeys(self.ends, 0.0), 0)
        ]

    def skip(self) -> None:
        """One message vanishes, and nobody knows."""
        if self.bus:
            self.bus.popleft()

    def look(self) -> None:
        """Redis answers one question; the answer is on its way."""
        for at, (name, reading) in enumerate(self.asked):
            first = self.channel.next(name)
            if reading is None and first is not None:
                frames = self.logs[name][first:]
                state = self.ends.get(name)
                ended = None if state is None else (state, state.encode())
                self.asked[at] = (name, LogReading(first, frames, ended))
                return

    def answer(self) -> None:
        """The oldest answer arrives."""
        if self.asked and (self.asked[0][1] is not None or self.channel.next(self.asked[0][0]) is None):
            name, reading = self.asked.popleft()
            if reading is not None:
                brought = self.channel.read(name, reading, 0)
                assert not brought.lost
                self.heard += brought.frames
                if brought.again:
                    self.asked.append((name, None))

    def settle(self) -> None:
        for name in self.logs:
            self.finish(name, "complete")
        self.lose()
        while self.asked:
            self.look()
            self.answer()


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from("abc")),
    st.tuples(st.just("hide"), st.sampled_from("abc")),
    st.tuples(st.just("finish"), st.sampled_from("abc"), st.sampled_from(["complete", "failed"])),
    *(st.tuples(st.just(name)) for name in ("hear", "hear", "hear", "lose", "skip", "look", "answer")),
)


@settings(max_examples=amount(100, 3_000))
@given(st.lists(STEPS, max_size=60), st.sampled_from([0, 5, 1_000]))
def test_each_token_once_in_order_then_one_end_whatever_is_lost(steps, room):
    world = World(room)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
    world.settle()
    for name, log in world.logs.items():
        mine = [
            payload for payload in world.heard if payload.startswith(name.encode()) and payload[1:].isdigit()
        ]
        assert mine == [payload for payload in log if payload]
    assert b"" not in world.heard
    ends = [payload.decode() for payload in world.heard if not payload[1:].isdigit()]
    assert sorted(ends) == sorted(world.ends.values())
    assert len(world.channel) == 0
    assert world.channel._room.used == 0


def test_the_bound_is_far_above_what_one_reply_needs():
    assert healing.HELD_BYTES >= 2**20


def test_what_is_heard_first_behind_a_deafness_before_the_first_look_begins_at_0(room):
    opened = HealedChannel(room, 0)
    assert takes(opened, token(7, "mid")) == [DELIVER]  # it streamed before
    opened.deafen()
    assert takes(opened, token(2)) == [ASK]
    opened.sync({"m": 3, "mid": 9, "silent": 4}, {}, 0)  # from before: what it says may have begun unheard
    assert (opened.next("m"), opened.next("mid"), opened.next("silent")) == (0, 8, None)
    assert opened.read("m", log(0, 2), 0) == healed([frame(0), frame(1), frame(2)], 2)
    assert opened.resync(["m", "mid", "silent"], {}, 0) == ["mid", "m", "silent"]
    assert opened.synced
    assert opened.read("silent", log(0, 4), 0).tokens == 4


def test_a_deafness_of_a_channel_that_was_looked_at_changes_nothing(channel):
    channel.sync({}, {}, 0)
    channel.deafen()
    assert takes(channel, token(0), token(1)) == [DELIVER] * 2
