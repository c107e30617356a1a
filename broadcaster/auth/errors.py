"""Errors of authentication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol import refusals

if TYPE_CHECKING:
    from legato.protocol.refusals import Refusal


class AuthError(ValueError):
    """The token is missing, invalid, or names no user. The text may be sent to the client.

    :param refusal: for the log, with ``detail``.
    """

    def __init__(
        self,
        text: str = "Unauthenticated.",
        refusal: Refusal = refusals.TOKEN_INVALID,
        detail: str = "",
    ) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.detail = detail


class KeysUnavailable(Exception):  # noqa: N818 - a state of the server, not an error of the caller
    """The keys for verifying tokens cannot be fetched at the moment.

    :ivar wait: seconds until a retry can succeed.
    """

    def __init__(self, wait: float) -> None:
        super().__init__("Tokens cannot be verified at the moment.")
        self.wait = wait
