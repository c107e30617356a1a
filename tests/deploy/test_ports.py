"""Ports, asked of the real kernel."""

from __future__ import annotations

import select
import socket
from functools import partial

import pytest

from legato.deploy import ports
from legato.deploy.errors import CommandError
from tests.deploy.screen import SECONDS, quiet_port


def test_a_port_is_free_until_somebody_listens() -> None:
    port = quiet_port()
    with socket.create_server(("127.0.0.1", port)):
        assert not ports.is_free("127.0.0.1", port)
    assert ports.is_free("127.0.0.1", port)


def test_some_port_is_free() -> None:
    """More than one try: the port is nobody's, so somebody may take it in between."""
    assert any(ports.is_free("127.0.0.1", ports.any_free("127.0.0.1")) for _ in range(5))


def test_a_reserved_port_is_shared_by_those_who_ask_and_refused_to_others() -> None:
    with ports.reserve("127.0.0.1", 0) as reserved:
        address = reserved.getsockname()
        with (
            socket.create_server(address, reuse_port=True) as first,
            socket.create_server(address, reuse_port=True) as second,
            socket.create_connection(address),
        ):
            reached = select.select([first, second], [], [], SECONDS)[0]
            assert len(reached) == 1, "the reserving socket swallowed the connection"
            reached[0].accept()[0].close()
            with pytest.raises(CommandError, match=f"port {address[1]} is taken"):
                ports.reserve(*address)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a..b"])
def test_a_foreign_address_is_one_line(host: str) -> None:
    for use in (partial(ports.is_free, port=8080), ports.any_free):
        with pytest.raises(CommandError, match=f"{host} is not an address of this machine") as caught:
            use(host)
        assert caught.value.status == 2
