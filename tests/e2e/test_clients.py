"""Real clients against the running processes: the page in Chromium, a stock Echo in Node."""

from __future__ import annotations

import pytest

from tests.e2e.scenarios import pass_all


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenarios", ["echo", "page"])
def test_real_clients(legato, scenarios):
    pass_all(scenarios, seconds=300, said=lambda: legato.output, LEGATO_URL=legato.url)
