"""All cases. Importing the modules registers them."""

from __future__ import annotations

from . import (
    cases_api_events,
    cases_api_queries,
    cases_api_signatures,
    cases_cache,
    cases_channels,
    cases_client_events,
    cases_connection,
    cases_fallback,
    cases_messages,
    cases_presence,
    cases_subscriptions,
    cases_users,
    cases_webhooks,
)
from .outcome import CASES, Case

MODULES = (
    cases_connection,
    cases_messages,
    cases_channels,
    cases_subscriptions,
    cases_presence,
    cases_client_events,
    cases_users,
    cases_cache,
    cases_api_signatures,
    cases_api_events,
    cases_api_queries,
    cases_webhooks,
    cases_fallback,
)


def order(section: str) -> list[int]:
    """The sort key of a section."""
    return [int(part) for part in section.split(".")]


def every() -> list[Case]:
    """All cases in the order of the specification."""
    return sorted(CASES, key=lambda case: order(case.section))
