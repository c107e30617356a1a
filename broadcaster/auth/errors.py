"""Why a token is not accepted."""

from __future__ import annotations


class AuthError(ValueError):
    """The token is missing, not valid, or lacks a user. The text is fit for the client."""


class KeysUnavailable(Exception):  # noqa: N818 - it is a state of the server, not a mistake of the caller
    """The keys that tokens are verified with cannot be had at the moment.

    :ivar wait: seconds until it is worth trying again.
    """

    def __init__(self, wait: float) -> None:
        super().__init__("Tokens cannot be verified at the moment.")
        self.wait = wait
