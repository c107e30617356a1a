"""Real clients against the running processes: the page in Chromium, a stock Echo in Node."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import KINDS, legato_up
from tests.e2e.scenarios import pass_all
from tests.tiers import amount


@pytest.mark.timeout(700)
def test_stock_echo(legato):
    pass_all("echo", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)


@pytest.mark.proof
@pytest.mark.timeout(700)
@pytest.mark.parametrize("legato", KINDS[: amount(1, len(KINDS))], indirect=True)
def test_page(legato):
    """With one kind of Redis in short: a page sees the same of either, and so does Echo of both above."""
    pass_all("page", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)


@pytest.mark.proof
@pytest.mark.timeout(700)
@pytest.mark.parametrize("legato", KINDS[:1], indirect=True)
def test_states_of_page(legato):
    """Each of them on a desktop and on a phone, light and dark."""
    pass_all("states", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)


@pytest.mark.proof
@pytest.mark.timeout(700)
@pytest.mark.parametrize("legato", KINDS[: amount(1, len(KINDS))], indirect=True)
def test_parts_in_page(legato):
    """Reasoning, tools, approvals and citations, as their events are published."""
    pass_all("parts", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)


@pytest.mark.proof
@pytest.mark.timeout(700)
def test_agent_in_page(tmp_path):
    """A reply with tools, and an approval that a click decides."""
    with legato_up(tmp_path, LEGATO_WORKER_AGENT="tests.e2e.desk:agent") as legato:
        pass_all("agent", seconds=600, said=lambda: legato.output, LEGATO_URL=legato.url)
        assert legato.stop() == 0
    assert "Traceback" not in legato.output
