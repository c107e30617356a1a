"""The server to load: presets of known servers, and the check that loading it is allowed."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from legato.benchmarks.errors import BAD_USAGE, BenchmarkError

from .orders import LoadTarget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Dialect(NamedTuple):
    """The defaults of a kind of server.

    :ivar url: its default URL; ``{}`` stands for the cluster of the hosted service.
    :ivar api: default URL of its HTTP API, if different.
    :ivar id: id of its default application; empty without one.
    :ivar hint: advice for its user.
    """

    url: str
    api: str = ""
    id: str = ""
    key: str = ""
    secret: str = ""
    hint: str = ""


DIALECTS: Final[Mapping[str, Dialect]] = {
    "legato": Dialect("ws://127.0.0.1:8080"),
    "reverb": Dialect(
        "ws://127.0.0.1:8080",
        hint="closes HTTP connections after each answer, so that each publish opens one; events above "
        "REVERB_APP_MAX_MESSAGE_SIZE are refused",
    ),
    "soketi": Dialect(
        "ws://127.0.0.1:6001",
        id="app-id",
        key="app-key",
        secret="app-secret",  # noqa: S106 - what soketi comes with
        hint="allows 100 members on a presence channel, unless SOKETI_PRESENCE_MAX_MEMBERS says otherwise",
    ),
    "pusher": Dialect(
        "wss://ws-{}.pusher.com",
        api="https://api-{}.pusher.com",
        hint="needs --cluster, and --allow-remote for both hosts; plans limit connections and messages",
    ),
}

PORTS: Final = {"ws": 80, "http": 80, "wss": 443, "https": 443}
SECURE: Final = ("wss", "https")


class Wanted(NamedTuple):
    """The options of the target; empty if not given."""

    dialect: str
    url: str
    api: str
    app_id: str
    key: str
    secret: str
    cluster: str
    allowed: Sequence[str] = ()


def resolve(wanted: Wanted, environ: Mapping[str, str]) -> LoadTarget:
    """The server to load.

    :raises BenchmarkError: something is missing or wrong, or the server is not on this machine and was not
        allowed by name.
    """
    dialect = DIALECTS[wanted.dialect]
    if "{}" in dialect.url and not (wanted.cluster or wanted.url):
        raise BenchmarkError(f"--preset {wanted.dialect}: --cluster is missing", BAD_USAGE)
    url = wanted.url or dialect.url.format(wanted.cluster)
    api = wanted.api or (dialect.api.format(wanted.cluster) if dialect.api and not wanted.url else url)
    scheme, host, port, path = _address("--url", url)
    api_scheme, api_host, api_port, api_path = _address("--api", api)
    if (scheme in SECURE) != (api_scheme in SECURE) or path != api_path:
        raise BenchmarkError("--api: expected the path of --url, and TLS where that has it", BAD_USAGE)
    _allow((host, api_host), wanted.allowed)
    app_id, key, secret = (
        _credential(option, given, environ.get(f"PUSHER_APP_{variable}", ""), usual)
        for option, variable, given, usual in (
            ("--app-id", "ID", wanted.app_id, dialect.id),
            ("--key", "KEY", wanted.key, dialect.key),
            ("--secret", "SECRET", wanted.secret, dialect.secret),
        )
    )
    tls = scheme in SECURE
    return LoadTarget(wanted.dialect, host, port, api_host, api_port, app_id, key, secret, tls, path)


def _credential(option: str, given: str, environment: str, usual: str) -> str:
    value = given or environment or usual
    if not value:
        variable = f"PUSHER_APP_{option.rpartition('-')[2].upper()}"
        raise BenchmarkError(f"{option} is missing (or {variable})", BAD_USAGE)
    return value


def _address(option: str, url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    try:
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not port or not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise BenchmarkError(f"{option} {url}: expected ws://HOST:PORT or wss://HOST:PORT", BAD_USAGE)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def is_local(host: str) -> bool:
    """Whether the host is certainly this machine. Its other names must be allowed by option."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _allow(hosts: Sequence[str], allowed: Sequence[str]) -> None:
    for host in hosts:
        if not is_local(host) and host not in allowed:
            raise BenchmarkError(
                f"{host} is not this machine; if you are allowed to load it, add --allow-remote {host}",
                BAD_USAGE,
            )
