"""Replies as logs have them: those of the sample files in ``golden/``, and any others."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypothesis import strategies as st

from legato.protocol import parts, stream, transcript
from legato.protocol.doors.base import Opening
from legato.protocol.parts import LogEntry, Part
from legato.protocol.stream import Begun, Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.protocol.doors.base import Framing, Translator
    from legato.protocol.transcript import Piece

GOLDEN: Final = Path(__file__).with_name("golden")

OPENING: Final = Opening("m7f3", 7, Begun("claude-sonnet-4-6", "anthropic", 1790000000))
USAGE: Final = stream.Usage(12, 7, 3)
COMPLETE: Final = Decision("end_turn", USAGE)
FAILED: Final = Decision(state="failed", code="provider_error")
CANCELLED: Final = Decision(usage=USAGE, state="cancelled")

Said = str | Part | None
"""What a worker writes: a token, a part, or something hidden."""


class Life(NamedTuple):
    """A reply from its first entry to its end."""

    said: tuple[Said, ...]
    decision: Decision

    @property
    def pieces(self) -> list[Piece]:
        tokens, found = 0, []
        for offset, one in enumerate(self.said):
            if isinstance(one, str):
                entry = LogEntry("", one.encode(), tokens)
                tokens += 1
            elif one is None:
                entry = LogEntry(parts.HIDDEN, b"", tokens)
            else:
                entry = LogEntry(one.kind, parts.encode(one), tokens)
            found.append(transcript.of_entry(entry, offset))
        return found

    @property
    def text(self) -> str:
        return "".join(one for one in self.said if isinstance(one, str))


def reasoning(*deltas: str) -> tuple[Part, ...]:
    return tuple(parts.ReasoningReceived(delta) for delta in deltas)


WEATHER: Final = (
    parts.ToolStarted("toolu_1", "weather"),
    parts.ToolInputReceived("toolu_1", '{"ci'),
    parts.ToolInputReceived("toolu_1", 'ty":"Paris"}'),
    parts.ToolCalled("toolu_1", "weather", {"city": "Paris"}),
    parts.ToolFinished("toolu_1", "weather", ok=True, output="18 °C"),
)

LIVES: Final = {
    "text": Life(("Hello", ", ", "Ann."), COMPLETE),
    "reasoning": Life((*reasoning("A greeting", " is enough."), "Hello", ", Ann."), COMPLETE),
    "tool": Life(("Let me look.", *WEATHER, "It is ", "18 °C."), COMPLETE),
    "failed": Life(("Hello",), FAILED),
    "cancelled": Life(("Hello",), CANCELLED),
}

_CALLS = st.sampled_from(["a", "b", "toolu_1"])
_JSON = st.one_of(
    st.none(), st.text(max_size=3), st.dictionaries(st.sampled_from("xy"), st.integers(), max_size=2)
)

SAID: Final = st.one_of(
    st.sampled_from(["Hi", "data: x", "\r", "\nb", "</stream>", "é𝄞"]),
    st.none(),
    st.builds(parts.ReasoningReceived, st.text(max_size=3)),
    st.builds(parts.ToolStarted, _CALLS, st.just("weather")),
    st.builds(parts.ToolInputReceived, _CALLS, st.text(max_size=3)),
    st.builds(parts.ToolCalled, _CALLS, st.just("weather"), _JSON),
    st.builds(parts.ToolCalled, _CALLS, st.just("hidden")),
    st.builds(parts.ToolFinished, _CALLS, st.just("weather"), st.just(True), _JSON),
    st.builds(parts.ToolFinished, _CALLS, st.just("weather"), st.just(False), error=st.text(max_size=3)),
    st.builds(parts.ToolFinished, _CALLS, st.just("weather"), st.just(False), denied=st.just(True)),
    st.builds(parts.ApprovalRequested, _CALLS, st.just("weather"), st.just(99), _JSON),
    st.builds(parts.ApprovalDecided, _CALLS, st.booleans()),
    st.builds(parts.CitationReceived, st.sampled_from(["", "https://a.test"]), st.text(max_size=2)),
    st.just(parts.StepCompleted(1, "tool_use", USAGE)),
)

DECISIONS: Final = st.sampled_from(
    [COMPLETE, FAILED, CANCELLED, Decision("pause_turn"), Decision("max_tokens", USAGE)]
)


@st.composite
def _lives(draw: Any) -> Life:
    said: list[Said] = draw(st.lists(SAID, max_size=25))
    for _ in range(draw(st.integers(0, 2))):  # a retraction is of earlier entries
        at = draw(st.integers(0, len(said)))
        said.insert(at, parts.Retracted(draw(st.integers(0, at))))
    return Life(tuple(said), draw(DECISIONS))


ANY: Final = _lives()

CUTS: Final = st.lists(st.integers(0, 25), max_size=5)
"""Where a log is cut into batches."""


def told(door: Translator, life: Life, cuts: Sequence[int] = ()) -> list[bytes]:
    """All messages of a reply that is fed in these batches."""
    pieces = life.pieces
    found = door.begin(OPENING)
    edges = sorted({0, len(pieces), *(min(cut, len(pieces)) for cut in cuts)})
    for begin, end in pairwise(edges):
        found += door.feed(pieces[begin:end])
    return found + door.end(life.decision)


def body(framing: Framing, door: Translator, life: Life) -> str:
    """The body of an answer."""
    return (framing.head + framing.join(told(door, life)) + framing.tail).decode()


def golden(name: str) -> str:
    """A sample file, without what depends on the time."""
    return (GOLDEN / name).read_text().replace(": keep-alive\n\n", "")
