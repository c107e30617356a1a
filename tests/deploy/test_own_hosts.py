"""The hosts of ``legato up``."""

from __future__ import annotations

import socket

import pytest

from legato.broadcaster.config import LOCAL_HOSTS
from legato.deploy import own_hosts
from legato.protocol.origins import Origins


def test_on_one_address_it_is_that_one_and_this_machine() -> None:
    assert own_hosts.of("192.0.2.7", 8080, {}) == [*LOCAL_HOSTS, "192.0.2.7:8080"]
    assert own_hosts.of("2001:db8::7", 8080, {})[-1] == "[2001:db8::7]:8080"
    assert own_hosts.of("::1", 80, {"LEGATO_DEV_HOSTS": "app.test, localhost,"})[-1] == "app.test"


@pytest.mark.parametrize("host", own_hosts.WILDCARDS)
def test_on_all_addresses_it_is_known_by_its_name_and_addresses(host: str) -> None:
    own = Origins(own_hosts.of(host, 8080, {}))
    assert own.allow(f"http://{socket.gethostname()}:8080")
    assert own.allow("http://localhost:5173")
    assert not own.allow("http://evil.test:8080")


def test_a_machine_without_a_usable_name_or_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSocket:
        def __init__(self, *_: object) -> None:
            raise OSError

    monkeypatch.setattr(socket, "gethostname", lambda: "it's mine")
    monkeypatch.setattr(socket, "socket", NoSocket)
    assert own_hosts.of("0.0.0.0", 8080, {}) == list(LOCAL_HOSTS)
