"""Real clients against the running processes: the page in Chromium, a stock Echo in Node."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import KINDS
from tests.e2e.scenarios import pass_all
from tests.tiers import amount


@pytest.mark.timeout(400)
def test_stock_echo(legato):
    pass_all("echo", seconds=300, said=lambda: legato.output, LEGATO_URL=legato.url)


@pytest.mark.proof
@pytest.mark.timeout(400)
@pytest.mark.parametrize("legato", KINDS[: amount(1, len(KINDS))], indirect=True)
def test_page(legato):
    """With one kind of Redis in short: a page sees the same of either, and so does Echo of both above."""
    pass_all("page", seconds=300, said=lambda: legato.output, LEGATO_URL=legato.url)
