"""Whether a node is ready, and what it does when the others consider it dead."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from legato.broadcaster.composition import running
from legato.broadcaster.lifecycle import close_lapsed, unready
from legato.protocol import errors
from tests.broadcaster.conftest import APP, dial, local_settings
from tests.waiting import until

READY = {"leaving": False, "connected": True, "held": True, "stuck": False}
REASONS = {
    "leaving": "draining",
    "connected": "not connected to Redis",
    "held": "the node's lease is not held",
    "stuck": "Redis does not take subscriptions",
}


def reason(**facts: bool) -> str | None:
    part = SimpleNamespace(**(READY | facts))
    return unready(part, part, part)


def test_a_node_is_ready_when_nothing_is_against_it():
    assert reason() is None


@pytest.mark.parametrize("fact", READY)
def test_each_reason_against_a_node_is_named(fact):
    assert reason(**{fact: not READY[fact]}) == REASONS[fact]


async def test_an_expired_lease_also_refuses_clients_that_wait_for_their_quota():
    settings = local_settings(msgspec.structs.replace(APP, max_connections=2))
    async with running(settings) as server:
        node = server.node
        node.registry.enter = lambda *_: None  # a Redis that does not answer
        async with dial(server.port) as ann:
            await until(lambda: node.admission._waiting)
            close_lapsed(node.clients, node.admission)
            assert (await ann.receive())["data"]["message"] == errors.LEASE_LAPSED.message
            assert await ann.closed() == errors.LEASE_LAPSED.code
        assert not node.admission._waiting
