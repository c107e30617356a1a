"""Who verifies the bearer tokens of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .errors import AuthError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.broadcaster.config import Auth


class Verifier(Protocol):
    """Tells who sends a request."""

    async def verify(self, authorization: str) -> Mapping[str, Any]:
        """The claims of an ``Authorization: Bearer`` header.

        :raises AuthError: no valid token.
        :raises KeysUnavailable: it cannot be known.
        """


class Nobody:
    """Refuses every token: ``[auth]`` has no key."""

    async def verify(self, _authorization: str) -> Mapping[str, Any]:
        """As :meth:`Verifier.verify`."""
        raise AuthError("Unauthenticated.")


def verifier(auth: Auth) -> Verifier:
    """Who verifies tokens as ``[auth]`` says.

    :raises SettingsError: the key file cannot be used, or an algorithm does not fit the key.
    """
    if not (auth.jwt_secret or auth.jwt_public_key or auth.jwks_url or auth.algorithms):
        return Nobody()
    from .jwt import Tokens  # noqa: PLC0415 - cryptography's megabytes are for those who use it

    return Tokens(auth)
