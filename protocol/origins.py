"""Matches ``Origin`` headers against a list of patterns, which are parsed once at the start.

A pattern is ``*``, or a host with an optional scheme and an optional port. Without a scheme, any scheme and
port match; with one, the port is the scheme's default unless the pattern names it. ``*`` as the first label
matches one or more labels, as a port any port, and elsewhere a part of one label: ``*.example.com``,
``preview-*.example.com``, ``http://localhost:*``, ``192.168.1.*``.
"""

from __future__ import annotations

import functools
import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

MAX_ORIGIN: Final = 512
"""Longest ``Origin`` header that is parsed, in characters."""

_AUTHORITY: Final = r"(?P<host>\[[^\[\]]*\]|[^\s:/?#@\[\],]*)(?::(?P<port>[0-9]{1,5}|\*))?"
_PATTERN: Final = re.compile(rf"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?{_AUTHORITY}/?")
_ORIGIN: Final = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY}")
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")
_WILD_LABEL: Final = re.compile(r"[a-z0-9_*-]{1,63}")
_NUMBERS: Final = re.compile(r"[0-9*]+(\.[0-9*]+){3}")

# Letters that browsers and Python's codec for host names (IDNA 2003) encode differently.
_DEVIATIONS: Final = frozenset("ßς\u200c\u200d")


class _Origin(NamedTuple):
    """A parsed origin. An IPv6 address is one label, in brackets."""

    scheme: str
    labels: tuple[str, ...]
    port: int | None


class _Rule(NamedTuple):
    """A parsed pattern; None matches anything. ``numbers``: its host is an IPv4 address."""

    scheme: str | None
    labels: tuple[str, ...] | None
    port: int | None
    numbers: bool

    def allows(self, origin: _Origin) -> bool:
        return (
            self.scheme in (None, origin.scheme)
            and self.port in (None, origin.port)
            and (self.labels is None or self._has_host(self.labels, origin.labels))
        )

    def _has_host(self, pattern: tuple[str, ...], host: tuple[str, ...]) -> bool:
        if self.numbers and not _is_ipv4(".".join(host)):
            return False  # `192.168.1.*` matches addresses only, not the name 192.168.1.evil
        if pattern[0] == "*" and not self.numbers:
            pattern, left = pattern[1:], len(host) - len(pattern) + 1
            return left > 0 and all(map(_label_matches, pattern, host[left:]))
        return len(host) == len(pattern) and all(map(_label_matches, pattern, host))


class Origins:
    """A list of parsed patterns.

    :ivar any: every origin is allowed, ``null`` included.
    :param scheme: whether every pattern must name a scheme.
    :raises ValueError: a pattern is invalid; one line with the pattern and what is expected.
    """

    def __init__(self, patterns: Iterable[str], *, scheme: bool = False) -> None:
        found = tuple(patterns)
        self.any = "*" in found
        self._rules = tuple(_rule(text, scheme=scheme) for text in found if text != "*")

    def allow(self, origin: str) -> bool:
        """Whether the value of an ``Origin`` header is allowed."""
        if self.any:
            return True
        parsed = _parse(origin)
        return parsed is not None and any(rule.allows(parsed) for rule in self._rules)


@functools.lru_cache(maxsize=4096)
def origins(patterns: tuple[str, ...]) -> Origins:
    """The parsed patterns, cached."""
    return Origins(patterns)


def _parse(origin: str) -> _Origin | None:
    usable = origin.isascii() and len(origin) <= MAX_ORIGIN
    match = _ORIGIN.fullmatch(origin.lower()) if usable else None
    if match is None or not match["host"] or match["port"] == "*":
        return None
    labels = _address(match["host"]) or tuple(match["host"].split("."))
    if not all(map(_LABEL.fullmatch, labels)) and not labels[0].startswith("["):
        return None
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS.get(match["scheme"])
    return _Origin(match["scheme"], labels, port)


def _address(host: str) -> tuple[str, ...] | None:
    """The canonical form of an IPv6 address; None for any other host."""
    if not host.startswith("["):
        return None
    try:
        return (f"[{IPv6Address(host[1:-1])}]",)
    except AddressValueError:
        return None


def _rule(text: str, *, scheme: bool) -> _Rule:
    low = text.lower()
    if low == "null":
        raise ValueError("'null': pages without an origin can only be let in with all others, by '*'")
    if low.count(":") > 1 and "[" not in low and "://" not in low:
        low = f"[{low}]"  # an IPv6 address without brackets
    match = _PATTERN.fullmatch(low)
    if match is None or not match["host"]:
        raise ValueError(f"{text!r}: expected a host such as 'app.example.com', '*.example.com' or '*'")
    if scheme and match["scheme"] is None:
        raise ValueError(f"{text!r}: expected a scheme in front, as in 'https://app.example.com'")
    port = _port(text, match["scheme"], match["port"])
    numbers = _NUMBERS.fullmatch(match["host"]) is not None
    return _Rule(match["scheme"], _labels(text, match["host"]), port, numbers)


def _port(text: str, scheme: str | None, port: str | None) -> int | None:
    if port == "*":
        return None
    if port is None:
        return DEFAULT_PORTS.get(scheme or "")
    if not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r}: there is no such port")
    return int(port)


def _labels(text: str, host: str) -> tuple[str, ...] | None:
    """The labels of a pattern's host; None for any host."""
    if host == "*":
        return None
    if host.startswith("["):
        address = _address(host)
        if address is None:
            raise ValueError(f"{text!r}: expected an IPv6 address in the brackets")
        return address
    labels = tuple(_ascii(text, label) for label in host.split("."))
    if not all(map(_WILD_LABEL.fullmatch, labels)):
        raise ValueError(f"{text!r}: is not a host name")
    if not _NUMBERS.fullmatch(host):
        _check_ending(text, labels)
    return labels


def _ascii(text: str, label: str) -> str:
    """A label in punycode, as browsers send it."""
    if label.isascii():
        return label
    try:
        encoded = label.encode("idna").decode("ascii")
    except UnicodeError:
        encoded = ""
    if not encoded or "*" in label or _DEVIATIONS.intersection(label):
        raise ValueError(f"{text!r}: write this name as browsers send it, in punycode (xn--...)")
    return encoded


def _check_ending(text: str, labels: tuple[str, ...]) -> None:
    if "*" in labels[-1]:
        raise ValueError(
            f"{text!r}: would allow names of any owner: the last part of a name cannot have a '*'"
        )
    if len(labels) == 2 and labels[0].startswith("*") and labels[0] != "*":
        other = f"*.{labels[0].lstrip('*')}.{labels[1]}"
        raise ValueError(f"{text!r}: would allow names of other owners too; expected {other!r}")


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _label_matches(pattern: str, label: str) -> bool:
    first, *middle = pattern.split("*")
    if not middle:
        return pattern == label
    *middle, last = middle
    if not label.startswith(first):
        return False
    at = len(first)
    for part in middle:
        at = label.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(label) - at >= len(last) and label.endswith(last)
