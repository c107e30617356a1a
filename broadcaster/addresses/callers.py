"""The address of the client behind a connection: the peer's, or what a trusted proxy says of it."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from legato.broadcaster.address_limits import CACHED_CALLERS, IPV6_PREFIX_BITS, MAX_FORWARDED_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from ipaddress import IPv4Network

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

_FIELD: Final = b"x-forwarded-for"
_LINE: Final = re.compile(rb"(?i)\r\nx-forwarded-for:([^\r\n]*)")
_WITH_PORT: Final = re.compile(r"(?:\[([^\]]+)\]|([0-9.]+))(?::[0-9]{1,5})?")


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse ``server.trusted_proxies``: addresses, and networks such as ``10.0.0.0/8``.

    :raises ValueError: one is neither. The text names it.
    """
    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise ValueError(f"{text!r}: expected an address or a network, as 10.0.0.0/8") from error
    return tuple(found)


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """All ``X-Forwarded-For`` fields as one; empty without any. Names are in lower case."""
    return b",".join([value for name, value in headers if name == _FIELD])


class Callers:
    """Finds the address of a client, in the form in which limits count it.

    That is an IPv4 address, or the /64 of an IPv6 address; empty if the transport does not know its peer.

    :param trusted: proxies whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = networks(trusted)
        self._known = lru_cache(CACHED_CALLERS)(self._find)

    def of(self, transport: asyncio.BaseTransport, said: bytes) -> str:
        """The address behind a transport.

        :param said: the ``X-Forwarded-For`` of the request.
        """
        peer = transport.get_extra_info("peername")
        if not peer:
            return ""
        return self._known(peer[0], said[-MAX_FORWARDED_BYTES - 1 :] if self._trusted else b"")

    def of_request(self, transport: asyncio.BaseTransport, request: bytes) -> str:
        """As :meth:`of`, for a request of which only the bytes are known. It begins with its whole head."""
        if not self._trusted:
            return self.of(transport, b"")
        return self.of(transport, b",".join(_LINE.findall(request, 0, request.find(b"\r\n\r\n"))))

    def _find(self, peer: str, said: bytes) -> str:
        address = _parse(peer.partition("%")[0])
        if address is None:
            return ""
        return _counted(self._client(said, address) if self._is_trusted(address) else address)

    def _client(self, said: bytes, peer: Address) -> Address:
        """The right-most address that is no trusted proxy: what is left of it, the client may have made up.

        The peer's, if nothing valid is there; the left-most, if all are trusted.
        """
        entries = said.decode("latin-1").split(",")
        if len(said) > MAX_FORWARDED_BYTES:
            del entries[0]  # it may have lost its beginning
        found = None
        for entry in reversed(entries):
            found = _parse(entry.strip(" \t"))
            if found is None:
                return peer
            if not self._is_trusted(found):
                break
        return found or peer

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _parse(text: str) -> Address | None:
    """Parse an address. Some proxies add the port; to a listener for IPv6, IPv4 addresses are mapped."""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def _counted(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, IPV6_PREFIX_BITS), strict=False))
