"""No secret of any setting is shown, and every setting that can hold one is marked."""

from __future__ import annotations

import re
from typing import Annotated, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import legato.broadcaster.config
import legato.worker.config
from legato.protocol.apps import App, Webhook
from legato.protocol.redaction import HIDDEN, mark, shown, without_credentials
from tests.sample import tables

NO_SECRETS = {
    "apps.key": "public",
    "apps.old_keys": "its values are secrets themselves",
    "auth.jwt_public_key": "public, and a path",
    "server.tls_key": "a path",
    "server.max_failed_tokens_per_address": "a number",
    "provider.max_tokens": "a number",
    "provider.first_token_seconds": "a number",
    "provider.no_token_seconds": "a number",
    "doors.token_seconds": "a number",
}
"""Settings that are called as secrets are, and why they are none."""


def test_whatever_may_be_a_secret_is_marked() -> None:
    suspicious = re.compile(r"secret|key|url|token|password|headers|options")
    unmarked = {
        f"{table}.{name}"
        for table, struct in tables()
        for name, kind in get_type_hints(struct, include_extras=True).items()
        if suspicious.search(name) and mark(kind) is None
    }
    assert unmarked == NO_SECRETS.keys()


APP = App(
    id="1",
    key="k",
    secret="geheim",
    old_keys={"old": "geheim"},
    webhooks=(Webhook(url="https://u:geheim@h:1/geheim?geheim", headers={"X": "geheim"}),),
)


def test_secrets_of_an_application_are_hidden_at_any_depth() -> None:
    found = shown(APP, App)
    assert "geheim" not in repr(found)
    assert (found["id"], found["secret"], found["old_keys"]) == ("1", HIDDEN, {"old": HIDDEN})
    (webhook,) = found["webhooks"]
    assert (webhook["url"], webhook["headers"]) == (f"https://{HIDDEN}@h:1/{HIDDEN}", {"X": HIDDEN})
    assert webhook["max_events"] == 100


@pytest.mark.parametrize("kind", [legato.broadcaster.config.Settings, legato.worker.config.Settings])
def test_what_is_no_secret_is_shown_as_it_is(kind: type[msgspec.Struct]) -> None:
    assert shown(kind(), kind)["log"] == {"level": "info", "time": "auto", "format": "console"}
    assert shown({"a": 1}, dict) == {"a": 1}
    assert shown(3, Annotated[int, msgspec.Meta(ge=0)]) == 3


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:geheim@h:1/0", "redis://***@h:1/0"),
        ("mysql://u:ge/h?e@im@h/x?password=geheim", "mysql://***@h/x?***"),
        ("postgresql:///x?user=geheim", "postgresql:///x?***"),
        ("sqlite:///legato.db", "sqlite:///legato.db"),
        ("geheim", "***"),
    ],
)
def test_urls_lose_user_password_and_query(url: str, text: str) -> None:
    assert without_credentials(url) == text


@given(st.text(min_size=1).map(lambda text: f"~{text}~"))
def test_no_password_leaves_a_url(password: str) -> None:
    for url in (f"redis://u:{password}@h/0", f"redis://h/0?password={password}"):
        assert password not in without_credentials(url)
    webhook = get_args(get_type_hints(App, include_extras=True)["webhooks"])[0]
    kind = get_type_hints(webhook, include_extras=True)["url"]
    assert password not in shown(f"https://h/x{password}", kind)
