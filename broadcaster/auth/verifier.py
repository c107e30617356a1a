"""Chooses how the bearer tokens of requests are verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from legato.protocol import refusals

from .errors import AuthError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.broadcaster.config import Auth


class Verifier(Protocol):
    """Verifies bearer tokens."""

    async def verify(self, authorization: str) -> Mapping[str, Any]:
        """Return the claims of the token in an ``Authorization: Bearer`` header.

        :raises AuthError: no valid token.
        :raises KeysUnavailable: the token cannot be verified at the moment.
        """


class Nobody:
    """Refuses every token: ``[auth]`` has no key."""

    async def verify(self, _authorization: str) -> Mapping[str, Any]:
        """See :meth:`Verifier.verify`."""
        raise AuthError(refusal=refusals.NO_TOKEN_KEY)


def verifier(auth: Auth) -> Verifier:
    """Return the verifier that ``[auth]`` configures.

    :raises SettingsError: the key file cannot be used, or an algorithm does not fit the key.
    """
    if not (auth.jwt_secret or auth.jwt_public_key or auth.jwks_url or auth.algorithms):
        return Nobody()
    from .jwt import Tokens  # noqa: PLC0415 - load cryptography only if it is used

    return Tokens(auth)
