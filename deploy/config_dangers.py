"""Settings that are valid and dangerous: secrets that can be guessed, ``*`` origins, no TLS."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from legato.protocol import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from legato.broadcaster.config import Auth, Server, Settings
    from legato.protocol.apps import App

PUBLISHED: Final = frozenset(
    {
        *("app-secret", "a-long-random-secret", "the-secret-that-your-application-signs-tokens-with"),
        *("secret", "app_secret", "my-secret", "your-secret", "changeme", "change-me", "password"),
    }
)
"""Secrets of examples: ours, soketi's and the usual ones."""

APP_SECRET_CHARACTERS: Final = 16
"""Fewest characters of an application's secret. Reverb and Pusher make 20."""

HASH_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithm -> bytes of its hash, which a key must have (RFC 7518, 3.2)."""

RSA_BITS: Final = 2048
"""Fewest bits of an RSA key (RFC 7518, 3.3)."""

LOCAL: Final = ("127.0.0.1", "localhost", "::1")
"""Addresses that only a proxy on the same machine can reach."""

EXPIRY_DAYS: Final = 14

_MIN_DIFFERENT: Final = 6
_RANDOM: Final = "make one with `openssl rand -hex 32`"


def of_broadcaster(settings: Settings) -> Iterator[str]:
    """The dangers in its settings, a line for each."""
    if settings.dev.enabled:
        yield "dev.enabled: everybody gets tokens for any user: never in production"
    if "*" in settings.server.cors_origins:
        yield "server.cors_origins: * lets any web page call the chat: name your sites"
    yield from _of_addresses(settings.server)
    yield from of_apps(settings.apps)
    yield from _of_tokens(settings.auth)
    yield from _of_certificate(settings.server)


def _of_addresses(server: Server) -> Iterator[str]:
    for proxy in server.trusted_proxies:
        if proxy.endswith("/0"):
            yield f"server.trusted_proxies: {proxy} lets every client choose its address: name your proxies"
    limited = any(getattr(server, name) for name in server.__struct_fields__ if name.endswith("_per_address"))
    if limited and server.host in LOCAL and not server.trusted_proxies:
        yield "server.trusted_proxies: without it, all clients behind your proxy count as one address"


def of_apps(apps: Iterable[App]) -> Iterator[str]:
    """The dangers in applications, a line for each."""
    for app in apps:
        if "*" in app.allowed_origins:
            yield f"apps.allowed_origins: * lets any web page connect to {app.id}: name your sites"
        for key, secret in app.keys.items():
            if reason := guessable(secret, APP_SECRET_CHARACTERS):
                place = "apps.secret" if key == app.key else f"apps.old_keys: the secret of {key}"
                yield f"{place} of application {app.id} {reason}: {_RANDOM}"


def guessable(secret: str, least: int) -> str:
    """Why a secret can be guessed; empty if it looks as if it cannot."""
    if secret.casefold() in PUBLISHED:
        return "is one of a published example"
    size = len(secret.encode())
    if size < least:
        return f"has {size} bytes, fewer than {least}"
    return "repeats a few characters" if len(set(secret)) < _MIN_DIFFERENT else ""


def _of_tokens(auth: Auth) -> Iterator[str]:
    if auth.jwt_secret:
        least = max(HASH_BYTES.get(name, 0) for name in auth.algorithms or ("HS256",))
        if reason := _weak_key(auth.jwt_secret, least):
            yield f"auth.jwt_secret {reason}: {_RANDOM}"
    if auth.jwt_public_key and (bits := _rsa_bits(auth.jwt_public_key)) and bits < RSA_BITS:
        yield f"auth.jwt_public_key: an RSA key of {bits} bits is too short: expected {RSA_BITS} or more"
    if auth.jwks_url.startswith("http://"):
        yield "auth.jwks_url: keys come without TLS: expected https://"
    if (auth.jwt_secret or auth.jwt_public_key or auth.jwks_url) and not auth.require_exp:
        yield "auth.require_exp: without it a stolen token is valid for ever"


def _weak_key(secret: str, least: int) -> str:
    """As :func:`guessable`. Tokens may be signed with what follows ``base64:``, decoded."""
    if secret.startswith("base64:"):
        try:
            size = len(base64.b64decode(secret.removeprefix("base64:"), validate=True))
        except binascii.Error:
            return guessable(secret, least)
        return f"has {size} bytes, fewer than {least}" if size < least else ""
    return guessable(secret, least)


def _rsa_bits(path: str) -> int:
    """The bits of an RSA key, 0 for another one. :class:`.Tokens` reports a file that cannot be used."""
    key = serialization.load_pem_public_key(Path(path).read_bytes())
    return key.key_size if isinstance(key, RSAPublicKey) else 0


def certificate_error(server: Server) -> str:
    """Why TLS cannot start with the certificate and its key; empty if it can."""
    if not server.tls_cert:
        return ""
    try:
        # Without a function, a key with a passphrase would make OpenSSL ask for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.tls_cert, server.tls_key, lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        return f"server.tls_cert, server.tls_key: cannot be used: {reason}"
    return ""


def _of_certificate(server: Server) -> Iterator[str]:
    if not server.tls_cert or certificate_error(server):
        return
    first = x509.load_pem_x509_certificates(Path(server.tls_cert).read_bytes())[0]
    days = int((first.not_valid_after_utc.timestamp() - time.time()) // 86_400)
    if days < 0:
        yield "server.tls_cert: the certificate has expired"
    elif days < EXPIRY_DAYS:
        yield f"server.tls_cert: the certificate expires in {days} days"


def of_redis(url: str) -> Iterator[str]:
    """The dangers of a Redis URL."""
    plan = redis_url.parse(url)
    hosts = [address.host for address in plan.addresses if not _is_here(address.host)]
    if hosts and not plan.tls:
        yield (
            f"redis.url: no TLS to {', '.join(hosts)}: whoever is on the way can read all messages: "
            "use rediss://, or a network of your own"
        )


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
