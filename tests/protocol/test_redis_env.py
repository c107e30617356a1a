"""Laravel's variables for Redis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.redis_env import with_redis_url
from legato.protocol.redis_url import Address, parse
from legato.protocol.settings import SettingsError

URLS = [
    ({}, ""),
    ({"REDIS_PASSWORD": "p", "REDIS_PORT": "1"}, ""),
    ({"REDIS_HOST": "h"}, "redis://h:6379/0"),
    ({"REDIS_HOST": "127.0.0.1", "REDIS_PASSWORD": "null", "REDIS_PORT": "6379"}, "redis://127.0.0.1:6379/0"),
    (
        {"REDIS_HOST": "h", "REDIS_PORT": "1", "REDIS_DB": "3", "REDIS_PASSWORD": "p@:/"},
        "redis://:p%40%3A%2F@h:1/3",
    ),
    ({"REDIS_HOST": "h", "REDIS_USERNAME": "u", "REDIS_PASSWORD": "p"}, "redis://u:p@h:6379/0"),
    ({"REDIS_HOST": "h", "REDIS_USERNAME": "u"}, "redis://h:6379/0"),
    ({"REDIS_HOST": "tls://h"}, "rediss://h:6379/0"),
    ({"REDIS_HOST": "tcp://h"}, "redis://h:6379/0"),
    ({"REDIS_HOST": "h", "REDIS_SCHEME": "tls"}, "rediss://h:6379/0"),
    ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
    ({"REDIS_HOST": "[::1]"}, "redis://[::1]:6379/0"),
    ({"REDIS_HOST": "/run/r s.sock", "REDIS_PORT": "0", "REDIS_DB": "2"}, "unix:///run/r%20s.sock?db=2"),
    ({"REDIS_HOST": "/r.sock", "REDIS_PASSWORD": "p"}, "unix://:p@/r.sock?db=0"),
    ({"REDIS_HOST": "h", "REDIS_URL": "redis://x/1"}, "redis://x/1"),
    ({"REDIS_URL": "null", "REDIS_HOST": "h"}, "redis://h:6379/0"),
    ({"REDIS_URL": "tcp://x:1?database=0", "REDIS_PASSWORD": "p"}, "tcp://:p@x:1?database=0"),
    ({"REDIS_URL": "redis://:q@x", "REDIS_PASSWORD": "p"}, "redis://:q@x"),
    ({"REDIS_URL": "redis://x?password=q", "REDIS_PASSWORD": "p"}, "redis://x?password=q"),
    ({"REDIS_URL": "redis+cluster://x", "REDIS_PASSWORD": "p"}, "redis+cluster://x"),
]


@pytest.mark.parametrize(("environ", "url"), URLS)
def test_the_address(environ, url):
    found = with_redis_url({"PATH": "/bin"} | environ)
    assert found["REDIS_URL"] == url
    assert found["PATH"] == "/bin"
    if url:
        parse(url)


def test_the_default_is_this_machine():
    assert with_redis_url({"REDIS_PASSWORD": "p"}, default=True)["REDIS_URL"] == "redis://:p@127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("REDIS_HOST", host) for host in ("a b", "http://h", "u:hush@h", "h:1", "h/1", "a,b", "tls://")),
        ("REDIS_PORT", "hush"),
        ("REDIS_DB", "-1"),
        ("REDIS_DB", "1" * 9),
    ],
)
def test_what_cannot_be_used_is_named_and_not_repeated(name, value):
    with pytest.raises(SettingsError, match=f"^environment: {name}: expected") as caught:
        with_redis_url({"REDIS_HOST": "h", "REDIS_PASSWORD": "hush", name: value})
    assert "hush" not in str(caught.value)


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).filter(
    lambda text: text.strip() == text and text.lower() not in ("null", "(null)", "empty", "(empty)")
)


@given(TEXT, TEXT)
def test_user_and_password_arrive_as_they_are(username, password):
    environ = {"REDIS_HOST": "h", "REDIS_USERNAME": username, "REDIS_PASSWORD": password}
    plan = parse(with_redis_url(environ)["REDIS_URL"])
    assert (plan.addresses, plan.username, plan.password) == ((Address("h", 6379),), username, password)
