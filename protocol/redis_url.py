"""Parses Redis URLs: of a single server, a Cluster, or a master behind Sentinels.

=============================================== =====================================================
``redis://USER:PASSWORD@HOST:PORT/DATABASE``    one server; every part but the host may be left out
``unix:///PATH``                                one server on a unix socket
``redis+cluster://HOST:PORT,HOST:PORT``         a Cluster, by some of its nodes: the others are found
``redis+sentinel://HOST:PORT,HOST:PORT/NAME/0`` the master called NAME, by its Sentinels
=============================================== =====================================================

``rediss`` instead of ``redis`` is TLS, everywhere; Laravel's names for one server are ``tcp`` and ``tls``.
Special characters in user and password are written as ``%XX``.
Options follow a ``?``: those of :data:`OPTIONS`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec

from .settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["single", "cluster", "sentinel"]

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

EXPECTED: Final = (
    "redis.url: expected redis://HOST:PORT, rediss://HOST:PORT, unix:///PATH, "
    "redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/NAME"
)
"""No error repeats any part of a URL, because a misplaced password may be anywhere in it."""

_KINDS: Final[dict[str, Kind]] = {"": "single", "cluster": "cluster", "sentinel": "sentinel"}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_HOST: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\s:\[\]@,/]+))(?::(?P<port>[0-9]{1,5}))?"
)


class Address(NamedTuple):
    """Host and port of a server."""

    host: str
    port: int


class Plan(msgspec.Struct, frozen=True):
    """A parsed URL.

    :ivar addresses: the server, at least one node of the Cluster, or the Sentinels; empty for a unix socket.
    :ivar path: path of the unix socket, or empty.
    :ivar master: name of the master at the Sentinels, or empty.
    :ivar options: the given :data:`OPTIONS` with their values.
    """

    kind: Kind
    addresses: tuple[Address, ...] = ()
    path: str = ""
    tls: bool = False
    username: str = ""
    password: str = ""
    database: int = 0
    master: str = ""
    options: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Without user, password, and the options, which may contain a password."""
        return f"Plan({self.shown()!r})"

    def shown(self) -> str:
        """The URL for logs: without user, password and options."""
        if self.path:
            return f"unix://{self.path}"
        scheme = "rediss" if self.tls else "redis"
        kind = "" if self.kind == "single" else f"+{self.kind}"
        hosts = ",".join(_written(address) for address in self.addresses)
        master = f"/{self.master}" if self.master else ""
        database = f"/{self.database}" if self.database else ""
        return f"{scheme}{kind}://{hosts}{master}{database}"


def _written(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _truth(text: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text.lower()]


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:  # false for NaN too
        raise ValueError
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if not 0 < count < 1_000_000:
        raise ValueError
    return count


def _database(text: str) -> int:
    database = int(text or "0")
    if not 0 <= database < 1_000_000:
        raise ValueError
    return database


def _requirement(text: str) -> str:
    return {"required": "required", "optional": "optional", "none": "none"}[text]


OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _truth,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "health_check_interval": _count,
    "max_connections": _count,
    "timeout": _seconds,
    "client_name": str,
    "sentinel_username": str,
    "sentinel_password": str,
}
"""The options by redis-py's names, with their parsers. The last two are the credentials for Sentinels."""

_PARTS: Final[dict[str, Callable[[str], Any]]] = {
    "db": _database,
    "database": _database,
    "username": str,
    "password": str,
}
"""Parts of the address that may also be options; ``database`` is Laravel's name of ``db``."""

_SCHEMES: Final = {"tcp": "redis", "tls": "rediss"}


def parse(url: str) -> Plan:
    """Parse a URL.

    :raises SettingsError: it is invalid. The text repeats nothing of it.
    """
    scheme, found, rest = url.partition("://")
    place, _, query = rest.partition("?")
    options = _options(query)
    if scheme == "unix" and found:
        return _unix(place, options)
    plain, _, kind = _SCHEMES.get(scheme, scheme).partition("+")
    if not found or plain not in ("redis", "rediss") or kind not in _KINDS or scheme.endswith("+"):
        raise SettingsError(EXPECTED)
    authority, _, path = place.partition("/")
    user, _, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    master, database = _path(_KINDS[kind], unquote(path), options.pop("db", None))
    return Plan(
        kind=_KINDS[kind],
        addresses=_addresses(_KINDS[kind], hosts),
        tls=plain == "rediss",
        username=unquote(username) or options.pop("username", ""),
        password=unquote(password) or options.pop("password", ""),
        database=database,
        master=master,
        options=options,
    )


def _unix(place: str, options: dict[str, Any]) -> Plan:
    user, _, rest = place.rpartition("@")
    username, _, password = user.partition(":")
    host, slash, path = rest.partition("/")
    if host or not path:
        raise SettingsError(EXPECTED)
    return Plan(
        kind="single",
        path=slash + unquote(path),
        username=unquote(username) or options.pop("username", ""),
        password=unquote(password) or options.pop("password", ""),
        database=options.pop("db", 0),
        options=options,
    )


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    known = OPTIONS | _PARTS
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise SettingsError(f"redis.url: an option is none of {', '.join(OPTIONS)}")
        try:
            options[name] = known[name](text)
        except (ValueError, KeyError):
            raise SettingsError(f"redis.url: the value of {name} cannot be used") from None
    if "database" in options:
        options["db"] = options.pop("database")
    return options


def _path(kind: Kind, path: str, database: int | None) -> tuple[str, int]:
    """Split the path into the master's name and the database."""
    master, _, number = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not _NAME.fullmatch(master):
        raise SettingsError(
            "redis.url: expected the name of the master behind the Sentinels, as in /mymaster or /mymaster/0"
        )
    try:
        database = _database(number) if database is None else database
    except ValueError:
        raise SettingsError("redis.url: expected the number of the database behind the last /") from None
    if kind == "cluster" and database:
        raise SettingsError("redis.url: a Cluster has no database but 0")
    return master, database


def _addresses(kind: Kind, hosts: str) -> tuple[Address, ...]:
    default = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    if not hosts and kind == "single":
        hosts = "localhost"
    addresses = tuple(_address(host.strip(), default) for host in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise SettingsError(
            "redis.url: more than one host: expected redis+cluster:// or redis+sentinel:// in front"
        )
    return addresses


def _address(text: str, port: int) -> Address:
    match = _HOST.fullmatch(text)
    port = int((match and match["port"]) or port)
    if not match or not 0 < port < 65_536:
        raise SettingsError(EXPECTED)
    return Address(match["six"] or unquote(match["name"]), port)
