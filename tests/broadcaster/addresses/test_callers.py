"""The address of a client: what a trusted proxy says is believed, and nothing else."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.broadcaster.address_limits import MAX_FORWARDED_BYTES
from legato.broadcaster.addresses.callers import Callers, forwarded
from tests.broadcaster.transport.fed import Transport

PROXY = "10.0.0.1"
BEHIND = Callers(["10.0.0.0/8", "2001:db8:ff::1"])


def of(peer: str | None, said: bytes, callers: Callers = BEHIND) -> str:
    return callers.of(Transport(peer), said)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (b"203.0.113.9", "203.0.113.9"),
        (b"198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the client has made up the first
        (b"198.51.100.1,203.0.113.9 ,\t10.2.3.4, 2001:db8:ff::1", "203.0.113.9"),
        (b"junk, 203.0.113.9, 10.2.3.4", "203.0.113.9"),
        (b"203.0.113.9:51324", "203.0.113.9"),
        (b"[2001:db8:1:2:3::4]:443", "2001:db8:1:2::/64"),
        (b"2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        (b"::ffff:203.0.113.9", "203.0.113.9"),
        (b"10.9.9.9, 10.2.3.4", "10.9.9.9"),  # all are proxies
        (b"", PROXY),
        (b"unknown", PROXY),
        (b"203.0.113.9, junk", PROXY),
        (b"203.0.113.9,", PROXY),
        (b"203.0.113.9, junk, 10.2.3.4", PROXY),
        (b"fe80::1%eth0", PROXY),
        (b"300.0.0.1", PROXY),
    ],
)
def test_a_trusted_proxy_says_who_the_client_is(said, address):
    assert of(PROXY, said) == address


@pytest.mark.parametrize("peer", ["203.0.113.1", "127.0.0.1"])
def test_others_are_not_believed(peer):
    assert of(peer, b"198.51.100.1") == peer
    assert of(peer, b"198.51.100.1", Callers([])) == peer


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "198.51.100.1"),  # a proxy, to a listener for IPv6
        (None, ""),
    ],
)
def test_peers_are_counted_by_their_network(peer, address):
    assert of(peer, b"198.51.100.1") == address


def test_only_the_end_of_a_long_header_is_read():
    """What the client wrote in front neither counts nor hides what the proxy has added."""
    made_up = b"198.51.100.1" + b"x" * MAX_FORWARDED_BYTES
    assert of(PROXY, made_up + b", 203.0.113.9") == "203.0.113.9"
    end = b"7, 10.2.3.4"
    cut = b"203.0.113." + end.rjust(MAX_FORWARDED_BYTES, b" ")
    assert of(PROXY, b"203.0.113.7" + b"," * MAX_FORWARDED_BYTES) == PROXY
    assert of(PROXY, cut.replace(b" ", b"1", MAX_FORWARDED_BYTES - len(end))) == "10.2.3.4"


def test_several_fields_are_one():
    fields = [(b"x-forwarded-for", b"198.51.100.1"), (b"host", b"x"), (b"x-forwarded-for", b"203.0.113.9")]
    assert forwarded(fields) == b"198.51.100.1,203.0.113.9"
    assert forwarded([]) == b""


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"x-forwarded-for"])
def test_the_bytes_of_a_request_say_the_same(name):
    head = b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\n" + name + b": 198.51.100.1\r\n"
    more = b"X-X-Forwarded-For: 198.51.100.3\r\n" + name + b":203.0.113.9\r\n\r\n"
    body = b"\r\nX-Forwarded-For: 198.51.100.2\r\n\r\n"
    assert BEHIND.of_request(Transport(PROXY), head + more + body) == "203.0.113.9"
    assert BEHIND.of_request(Transport("203.0.113.1"), head + more + body) == "203.0.113.1"
    assert Callers([]).of_request(Transport(PROXY), head + more) == PROXY


@given(st.one_of(st.binary(max_size=60), st.text("0123456789.:,[]f %", max_size=60).map(str.encode)))
def test_no_header_harms(said):
    address = of(PROXY, said)
    assert ip_network(address).num_addresses in (1, 2**64)
