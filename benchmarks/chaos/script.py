"""The script of a message for the scripted provider, and the possible ends of its reply."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

FAULT_CODES: Final = {
    "overloaded": frozenset({"overloaded"}),
    "disconnect": frozenset({"interrupted"}),
    "eof": frozenset({"interrupted"}),
    "hang": frozenset({"timeout"}),
    "refusal": frozenset({"refusal"}),
}
"""Fault of the provider -> possible codes of a reply that fails with it."""


NEVER_REPEATED: Final = frozenset({"mail"})
"""Tools of which a call must not be made twice."""

NEEDS_APPROVAL: Final = frozenset({"refund"})
"""Tools of which a call waits for a person."""


class PlannedCall(NamedTuple):
    """A call of a tool after so many words of the reply. Successive ones with one number are of one step."""

    tool: str
    after: int


def call_id(message_id: str, number: int) -> str:
    """The id that the scripted provider gives a call; ``number`` counts the calls of the reply from 0."""
    return f"call_{hashlib.blake2s(message_id.encode(), digest_size=6).hexdigest()}_{number}"


class ReplyScript(NamedTuple):
    """``tokens`` words at ``rate`` a second; in place of word ``fail_at`` the ``fault``, empty for none.

    :ivar always: the fault happens at every attempt, not only at the first.
    :ivar overlap: words that are repeated when the reply continues after an interruption.
    :ivar calls: tools that it calls, in order. Such a script has no fault.
    :ivar approve: what the user decides on calls that need an approval.
    """

    tokens: int
    rate: int
    fault: str = ""
    fail_at: int = 0
    always: bool = False
    overlap: int = 0
    calls: tuple[PlannedCall, ...] = ()
    approve: bool = True

    @property
    def line(self) -> str:
        """The message for the provider."""
        fault = f" fail={self.fault}@{self.fail_at}{'/always' if self.always else ''}" if self.fault else ""
        overlap = f" overlap={self.overlap}" if self.overlap else ""
        return f"#script rate={self.rate} {self._words}{fault}{overlap}"

    @property
    def _words(self) -> str:
        """The text and the calls."""
        words, said = [], 0
        for number, call in enumerate(self.calls):
            if call.after > said:
                words.append(f"tokens={call.after - said}")
                said = call.after
            words.append(f'tool={call.tool}:{{"n":{number}}}')
        return " ".join([*words, f"tokens={self.tokens - said}"])

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(f"w{index} " for index in range(self.tokens))

    def completes(self, attempts: int, *, continues: bool) -> bool:
        """Whether the reply may complete within this many attempts."""
        if not self.fault or self.always:
            return not self.fault
        if self.fault == "refusal":  # is final, but for a first attempt that did not come so far
            return attempts > 1
        return continues or self.fail_at == 0 or attempts > 1

    def fails(self, code: str, *, continues: bool) -> bool:
        """Whether its fault may have ended it. One that comes before any word uses up its requests."""
        final = self.always or self.fault == "refusal" or self.fail_at == 0 or not continues
        return final and code in FAULT_CODES.get(self.fault, ())
