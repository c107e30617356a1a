"""Verifies JSON Web Tokens with a secret, a public key, or the keys of a JWKS URL."""

from __future__ import annotations

import base64
import binascii
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from legato.broadcaster.limits import JWT_LEEWAY_SECONDS, JWT_MAX_CHARACTERS, WARNING_SECONDS
from legato.protocol import refusals
from legato.protocol.settings import SettingsError

from .errors import AuthError
from .jwks import KeySet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from legato.broadcaster.config import Auth
    from legato.protocol.refusals import Refusal

DEFAULT_ALGORITHMS: Final = {"secret": ("HS256",), "key": ("RS256", "ES256")}

_REFUSALS: Final[dict[type[Exception], tuple[Refusal, str]]] = {
    jwt.ExpiredSignatureError: (refusals.TOKEN_EXPIRED, ""),
    jwt.InvalidSignatureError: (refusals.TOKEN_SIGNATURE, ""),
    jwt.InvalidAudienceError: (refusals.TOKEN_CLAIMS, "aud is not auth.audience"),
    jwt.InvalidIssuerError: (refusals.TOKEN_CLAIMS, "iss is not auth.issuer"),
    jwt.ImmatureSignatureError: (refusals.TOKEN_CLAIMS, "nbf is in the future"),
    jwt.InvalidIssuedAtError: (refusals.TOKEN_CLAIMS, "iat is not a time"),
    jwt.MissingRequiredClaimError: (refusals.TOKEN_CLAIMS, ""),
    jwt.InvalidAlgorithmError: (refusals.TOKEN_INVALID, "its alg is not one of auth.algorithms"),
    jwt.DecodeError: (refusals.TOKEN_INVALID, "it is no JSON Web Token"),
}
"""What to log of an error. The first that fits counts."""

logger: Final = logging.getLogger("legato.auth")


class Tokens:
    """Verifies JWTs as configured in ``[auth]``. Without a key there, it refuses every token.

    :raises SettingsError: the key file cannot be used, or an algorithm does not fit the key.
    """

    def __init__(self, auth: Auth) -> None:
        self._keys: tuple[Any, ...] = _secrets(auth.jwt_secret) or _read_key(auth.jwt_public_key)
        self._jwks = KeySet(auth.jwks_url, auth.jwks_seconds) if auth.jwks_url else None
        kind = "secret" if auth.jwt_secret else "key"
        self._algorithms = list(auth.algorithms or DEFAULT_ALGORITHMS[kind])
        if any(name.startswith("HS") != (kind == "secret") for name in self._algorithms):
            raise SettingsError(
                "auth.algorithms: HS* goes with jwt_secret, the others with a key or JWKS URL"
            )
        self._audience = auth.audience or None
        self._issuer = auth.issuer or None
        self._required = ["sub", "exp"] if auth.require_exp else ["sub"]
        self._quiet_until = float("-inf")

    async def verify(self, authorization: str) -> Mapping[str, Any]:
        """Return the claims of the token in an ``Authorization: Bearer`` header.

        :raises AuthError: no valid token.
        :raises KeysUnavailable: the keys of the JWKS URL cannot be fetched.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > JWT_MAX_CHARACTERS:
            raise AuthError(refusal=refusals.NO_TOKEN)
        try:
            return self._decode(token, await self._find_keys(token))
        except jwt.MissingRequiredClaimError as error:
            if error.claim == "exp":
                self._warn()
            raise _refused(error, f"it has no {error.claim}") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise _refused(error) from error

    async def _find_keys(self, token: str) -> tuple[Any, ...]:
        if self._jwks is None:
            return self._keys
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str):
            raise jwt.InvalidTokenError("the token has no kid")
        return (await self._jwks.find(kid),)  # a PyJWK, which knows its algorithm

    def _decode(self, token: str, keys: tuple[Any, ...]) -> Mapping[str, Any]:
        *others, last = keys
        for key in others:
            try:
                return self._decode_with(token, key)
            except jwt.InvalidSignatureError:
                continue
        return self._decode_with(token, last)

    def _decode_with(self, token: str, key: Any) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=JWT_LEEWAY_SECONDS,
            # Many applications use an integer `sub`, which PyJWT refuses; parse_user_id checks it.
            options={
                "verify_sub": False,
                "verify_aud": self._audience is not None,
                "require": self._required,
            },
        )
        return claims

    def _warn(self) -> None:
        """Log why a token without ``exp`` is refused: its signature is valid, so the application made it."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + WARNING_SECONDS
            logger.warning("a token without exp was refused; auth.require_exp = false accepts such tokens")


def _refused(error: Exception, detail: str = "") -> AuthError:
    """The error for the log, too. The text of a library's error may have a part of the token."""
    found = next((row for kind, row in _REFUSALS.items() if isinstance(error, kind)), None)
    if found is None:
        return AuthError(
            detail="no key has its kid" if isinstance(error, ValueError) else type(error).__name__
        )
    return AuthError(refusal=found[0], detail=detail or found[1])


def _secrets(text: str) -> tuple[Any, ...]:
    """Return the secret; for ``base64:…`` also the decoded bytes, since applications sign with either."""
    if not text:
        return ()
    try:
        decoded = base64.b64decode(text.removeprefix("base64:"), validate=True)
    except binascii.Error:
        decoded = b""
    return (text, decoded) if text.startswith("base64:") and decoded else (text,)


def _read_key(path: str) -> tuple[str, ...]:
    if not path:
        return ()
    try:
        text = Path(path).read_bytes()
        serialization.load_pem_public_key(text)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"auth.jwt_public_key: {path} cannot be used; expected a PEM file with a public key"
        ) from error
    return (text.decode("ascii"),)
