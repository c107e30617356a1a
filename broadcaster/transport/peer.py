"""The address of a peer, for the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable


def address_of(transport: asyncio.BaseTransport) -> str:
    """Host and port of the peer, ``[host]:port`` for IPv6; empty if there is none."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or len(peer) < 2:
        return ""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def header_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """The values of a header, with commas between them; empty without any."""
    return b",".join([value for key, value in headers if key == name]).decode("latin-1")
