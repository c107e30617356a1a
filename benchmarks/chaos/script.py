"""The script of a message for the scripted provider, and the possible ends of its reply."""

from __future__ import annotations

from typing import Final, NamedTuple

FAULT_CODES: Final = {
    "overloaded": frozenset({"overloaded"}),
    "disconnect": frozenset({"interrupted"}),
    "eof": frozenset({"interrupted"}),
    "hang": frozenset({"timeout"}),
    "refusal": frozenset({"refusal"}),
}
"""Fault of the provider -> possible codes of a reply that fails with it."""


class ReplyScript(NamedTuple):
    """``tokens`` words at ``rate`` a second; in place of word ``fail_at`` the ``fault``, empty for none.

    :ivar always: the fault happens at every attempt, not only at the first.
    :ivar overlap: words that are repeated when the reply continues after an interruption.
    """

    tokens: int
    rate: int
    fault: str = ""
    fail_at: int = 0
    always: bool = False
    overlap: int = 0

    @property
    def line(self) -> str:
        """The message for the provider."""
        fault = f" fail={self.fault}@{self.fail_at}{'/always' if self.always else ''}" if self.fault else ""
        overlap = f" overlap={self.overlap}" if self.overlap else ""
        return f"#script tokens={self.tokens} rate={self.rate}{fault}{overlap}"

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
