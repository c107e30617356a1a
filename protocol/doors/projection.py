"""The rules of all doors: which parts and steps a log has, when each opens and closes, how each is numbered.

A *run* of text or of reasoning opens with its first piece, and closes before an entry of another kind.
Citations, and the end of a request to the model, do not close it. A new *step* begins before the first text,
reasoning or call that follows the result of a call. What begins has its end, also where the log lacks it: a
call is begun before its input or its result, and cut off at the end of the reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

from legato.protocol import parts

from .base import number_of, text_of, truth_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import msgspec

    from legato.protocol.transcript import Piece, VisiblePart

RunKind = Literal["text", "reasoning"]


class Run(NamedTuple):
    """A run of text or reasoning. ``number`` counts those of its kind, ``step`` the steps, from 1."""

    kind: RunKind
    number: int
    step: int


class RunOpened(NamedTuple):
    """A run begins: a piece of it follows."""

    run: Run


class RunGrew(NamedTuple):
    """The next piece of the run; never empty."""

    run: Run
    delta: str


class RunClosed(NamedTuple):
    """The run has ended."""

    run: Run


class StepBegun(NamedTuple):
    """The next step begins, which ends the one before. Not told of the first."""

    step: int


class CallBegun(NamedTuple):
    """The model begins to write the input of a call."""

    call: str
    name: str
    step: int


class CallGrew(NamedTuple):
    """The next piece of the input, as JSON text."""

    call: str
    delta: str


class CallGiven(NamedTuple):
    """The input is complete. None if readers may not see it."""

    call: str
    name: str
    input: msgspec.Raw | None


class CallCut(NamedTuple):
    """No input comes any more."""

    call: str


class CallEnded(NamedTuple):
    """The result of a call: ``output`` if ``ok``, else ``error``; None and empty if it is hidden."""

    call: str
    name: str
    ok: bool
    output: msgspec.Raw | None
    error: str
    denied: bool


FAILED_TOOL: Final = "The tool failed."
DENIED_TOOL: Final = "The call was not approved."


def error_of(event: CallEnded) -> str:
    """Why the call has failed, for protocols that have to say something."""
    return event.error or (DENIED_TOOL if event.denied else FAILED_TOOL)


class Asked(NamedTuple):
    """The call waits for the approval of a person."""

    call: str
    part: VisiblePart


class Answered(NamedTuple):
    """The call is approved or refused."""

    call: str
    part: VisiblePart


class Cited(NamedTuple):
    """A source of the text before it. ``number`` counts them from 1."""

    number: int
    url: str
    title: str


class Voided(NamedTuple):
    """Everything but text is void from this offset on."""

    start: int


ProjectedEvent = (
    RunOpened
    | RunGrew
    | RunClosed
    | StepBegun
    | CallBegun
    | CallGrew
    | CallGiven
    | CallCut
    | CallEnded
    | Asked
    | Answered
    | Cited
    | Voided
)


class _Call(NamedTuple):
    """A call so far. ``offset``: where it began."""

    offset: int
    name: str
    state: Literal["begun", "given", "ended"]


class Projection:
    """The events of one reply.

    :ivar step: the current one, from 1.
    :ivar offset: of the next piece.
    :ivar waiting: calls that wait for an approval.
    """

    def __init__(self) -> None:
        self.step = 1
        self.offset = 0
        self.waiting: dict[str, VisiblePart] = {}
        self._run: Run | None = None
        self._numbers: dict[RunKind, int] = {"text": 0, "reasoning": 0}
        self._calls: dict[str, _Call] = {}
        self._has_result = False
        self._citations = 0

    def feed(self, pieces: Sequence[Piece]) -> Iterator[ProjectedEvent]:
        """The events of the next pieces. Take them all."""
        for piece in pieces:
            if isinstance(piece, str):
                yield from self._grow("text", piece)
            elif piece is not None:
                handler = self._HANDLERS.get(piece.kind)
                if handler is not None:
                    yield from handler(self, piece)
            self.offset += 1

    def end(self) -> Iterator[ProjectedEvent]:
        """The events that close what is open."""
        yield from self._close()
        yield from self._cut(0)

    def reopen(self) -> None:
        """Forget that the current run was opened: its next piece opens it again, under its number."""
        if self._run is not None:
            self._numbers[self._run.kind] -= 1
            self._run = None

    def rewind(self, offset: int) -> None:
        """Go back to where the current step began: its pieces are told once more, under new numbers.

        :param offset: of its first piece, which comes next.
        """
        self.offset = offset
        self._run = None
        self._has_result = False
        self._calls = {call: known for call, known in self._calls.items() if known.offset < offset}
        self.waiting = {call: part for call, part in self.waiting.items() if part.offset < offset}

    @property
    def unfinished(self) -> set[str]:
        """The calls without a result."""
        return {call for call, known in self._calls.items() if known.state != "ended"}

    def _grow(self, kind: RunKind, delta: str) -> Iterator[ProjectedEvent]:
        if not delta:
            return
        run = self._run
        if run is None or run.kind != kind:
            yield from self._close()
            yield from self._go_on()
            self._numbers[kind] += 1
            self._run = run = Run(kind, self._numbers[kind], self.step)
            yield RunOpened(run)
        yield RunGrew(run, delta)

    def _close(self) -> Iterator[ProjectedEvent]:
        if self._run is not None:
            yield RunClosed(self._run)
            self._run = None

    def _go_on(self) -> Iterator[ProjectedEvent]:
        """Begin the next step if calls of the current one have had results."""
        if self._has_result:
            self._has_result = False
            self.step += 1
            yield StepBegun(self.step)

    def _reason(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        return self._grow("reasoning", text_of(part, "delta"))

    def _begin_call(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        yield from self._close()
        call, name = text_of(part, "call"), text_of(part, "name")
        if call not in self._calls:
            yield from self._go_on()
            self._calls[call] = _Call(self.offset, name, "begun")
            yield CallBegun(call, name, self.step)

    def _grow_call(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        yield from self._close()
        call, delta = text_of(part, "call"), text_of(part, "delta")
        known = self._calls.get(call)
        if delta and known is not None and known.state == "begun":
            yield CallGrew(call, delta)

    def _give_call(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        call = text_of(part, "call")
        is_new = call not in self._calls
        yield from self._begin_call(part)
        known, given = self._calls[call], part.data.get("input")
        if known.state == "begun":
            if is_new and given is not None:
                yield CallGrew(call, bytes(given).decode())
            self._calls[call] = known._replace(state="given")
            yield CallGiven(call, known.name, given)

    def _end_call(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        call = text_of(part, "call")
        known = self._calls.get(call)
        if known is None or known.state == "begun":
            yield from self._give_call(part)
        else:
            yield from self._close()
        known = self._calls[call]
        if known.state == "given":
            self._calls[call] = known._replace(state="ended")
            self.waiting.pop(call, None)
            self._has_result = True
            ok, error = truth_of(part, "ok"), text_of(part, "error")
            yield CallEnded(call, known.name, ok, part.data.get("output"), error, truth_of(part, "denied"))

    def _ask(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        yield from self._close()
        call = text_of(part, "call")
        self.waiting[call] = part
        yield Asked(call, part)

    def _answer(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        yield from self._close()
        call = text_of(part, "call")
        self.waiting.pop(call, None)
        yield Answered(call, part)

    def _cite(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        self._citations += 1
        yield Cited(self._citations, text_of(part, "url"), text_of(part, "title"))

    def _void(self, part: VisiblePart) -> Iterator[ProjectedEvent]:
        start = number_of(part, "from")
        yield from self._close()
        yield from self._cut(start)
        self._calls = {call: known for call, known in self._calls.items() if known.offset < start}
        yield Voided(start)

    def _cut(self, start: int) -> Iterator[ProjectedEvent]:
        """End the inputs that are being written, of calls from this offset on."""
        for call, known in self._calls.items():
            if known.offset >= start and known.state == "begun":
                yield CallCut(call)

    # What each kind of entry means. The end of a request to the model means nothing to a door.
    _HANDLERS: ClassVar[Mapping[str, Callable[[Any, VisiblePart], Iterator[Any]]]] = {
        parts.ReasoningReceived.kind: _reason,
        parts.ToolStarted.kind: _begin_call,
        parts.ToolInputReceived.kind: _grow_call,
        parts.ToolCalled.kind: _give_call,
        parts.ToolFinished.kind: _end_call,
        parts.ApprovalRequested.kind: _ask,
        parts.ApprovalDecided.kind: _answer,
        parts.CitationReceived.kind: _cite,
        parts.Retracted.kind: _void,
    }
