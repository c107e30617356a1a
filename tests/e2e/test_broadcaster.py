"""Stock clients against `legato broadcaster`, as one process alone and with Redis."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.conftest import BINARIES
from tests.e2e.scenarios import pass_all
from tests.e2e.server import Broadcaster, legato_broadcaster
from tests.redis_servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SCENARIOS = ["pusher", "echo-channels", "sdk", "webhooks"]
IN_CHROMIUM = ["echo-chromium", "encryption", "hooks"]


@pytest.fixture(scope="module", params=["local", "valkey"])
def broadcaster(request, tmp_path_factory) -> Iterator[Broadcaster]:
    with contextlib.ExitStack() as stack:
        environ = {}
        if request.param == "valkey":
            environ["REDIS_URL"] = stack.enter_context(RedisServer(BINARIES["valkey"])).url
        yield stack.enter_context(legato_broadcaster(tmp_path_factory.mktemp("legato"), **environ))


@pytest.mark.timeout(700)
@pytest.mark.parametrize("scenarios", SCENARIOS)
def test_stock_clients(broadcaster, scenarios):
    passes(broadcaster, scenarios)


@pytest.mark.timeout(700)
@pytest.mark.parametrize("broadcaster", ["valkey"], indirect=True)  # what a page adds is the same without
@pytest.mark.parametrize("scenarios", IN_CHROMIUM)
def test_stock_clients_in_chromium(broadcaster, scenarios):
    passes(broadcaster, scenarios)


def passes(broadcaster: Broadcaster, scenarios: str) -> None:
    pass_all(
        scenarios,
        "--test-force-exit",
        seconds=600,
        said=lambda: broadcaster.process.output,
        LEGATO_URL=broadcaster.url,
        WEBHOOKS_PORT=str(broadcaster.webhooks_port),
    )
