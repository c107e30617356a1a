"""Fair admission once more: on a Redis Cluster."""

from __future__ import annotations

import pytest

from tests.worker.jobs.test_fair_crashes import (
    stack,  # noqa: F401
    test_no_job_is_lost_or_run_twice_and_no_maximum_exceeded,  # noqa: F401
)
from tests.worker.jobs.test_fair_queue import *  # noqa: F403
from tests.worker.jobs.test_fair_queue import _quick  # noqa: F401
from tests.worker.jobs.test_positions import *  # noqa: F403


@pytest.fixture
def redis_url(redis_cluster):
    """Instead of one server, for everything in this module."""
    return redis_cluster.url
