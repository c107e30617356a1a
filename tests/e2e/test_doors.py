"""Stock clients of each door against the running processes, which all of them share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Legato, legato_up
from tests.e2e.scenarios import pass_all

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def legato(tmp_path_factory) -> Iterator[Legato]:
    with contextlib.ExitStack() as stack:
        data = tmp_path_factory.mktemp("legato")
        environ = {"LEGATO_WORKER_AGENT": "tests.e2e.desk:agent", "LEGATO_DOORS_DISCONNECT_GRACE": "1"}
        running = stack.enter_context(legato_up(data, **environ))
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.output


@pytest.mark.timeout(700)
@pytest.mark.parametrize("door", ["events", "hooks", "ui", "streams", "ag-ui", "openai"])
def test_stock_clients_read_replies(legato, door):
    pass_all(f"doors-{door}", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)
