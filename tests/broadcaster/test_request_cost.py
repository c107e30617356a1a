"""What a request and a connection cost, counted in Python instructions: the same under any load.

Measured with Python 3.11, each of one that comes after another like it: 1275 for an event published over HTTP
(1420 with the parser); 160 for a connection; 840 for its handshake as a browser asks for it (2910 with the
parser); 1470 for the subscription to a private channel; 1080 for the end (2190 with the library).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from legato.protocol import signatures
from tests.broadcaster.conftest import APP
from tests.broadcaster.test_fan_out_cost import instructions
from tests.broadcaster.transport.fed import SOCKET_ID, door
from tests.broadcaster.transport.test_http import event, post
from tests.broadcaster.transport.test_plain import FIREFOX, masked

if TYPE_CHECKING:
    from tests.broadcaster.transport.fed import Door

PUBLISH = 1400
STEPS = {"come": 200, "handshake": 1050, "subscribe": 1850, "leave": 1350}


async def test_a_published_event_costs_no_more():
    async with door() as opened:
        one, request = opened.come(), post(event("a", size=200))
        one.read(request)
        cost = instructions(lambda: one.read(request))
        assert one.written.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert 0 < cost < PUBLISH


def visit(opened: Door, channel: str) -> dict[str, int]:
    """The cost of each step of one client."""
    came = []
    steps = {"come": instructions(lambda: came.append(opened.come()))}
    (one,) = came
    steps["handshake"] = instructions(lambda: one.read(FIREFOX))
    auth = signatures.sign_channel(APP.key, APP.secret, SOCKET_ID, channel)
    data = {"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth}}
    frame = masked(0x81, json.dumps(data, separators=(",", ":")).encode(), b"mask")
    steps["subscribe"] = instructions(lambda: one.read(frame))
    assert b"pusher_internal:subscription_succeeded" in one.written
    goodbye = masked(0x88, b"\x03\xe9", b"mask")
    steps["leave"] = instructions(lambda: one.read(goodbye))
    assert one.ended
    one.protocol.connection_lost(None)
    return steps


async def test_a_client_costs_no_more():
    async with door() as opened:
        visit(opened, "private-user-1")
        steps = visit(opened, "private-user-2")
        assert all(0 < steps[name] < most for name, most in STEPS.items()), steps
