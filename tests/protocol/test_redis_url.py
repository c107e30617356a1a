"""Addresses of Redis: what they say, and what their mistakes say."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.redis_url import OPTIONS, Address, Plan, parse
from legato.protocol.settings import SettingsError

ADDRESSES = [
    ("redis://", Plan("single", (Address("localhost", 6379),))),
    ("redis://h", Plan("single", (Address("h", 6379),))),
    ("redis://h:1/2", Plan("single", (Address("h", 1),), database=2)),
    ("tcp://h:1?database=4", Plan("single", (Address("h", 1),), database=4)),
    ("tls://u:p@h:1/5", Plan("single", (Address("h", 1),), tls=True, username="u", password="p", database=5)),
    ("redis://h?db=3", Plan("single", (Address("h", 6379),), database=3)),
    ("redis://:p%40ss@h/", Plan("single", (Address("h", 6379),), password="p@ss")),
    ("redis://u:p@h", Plan("single", (Address("h", 6379),), username="u", password="p")),
    ("redis://h?username=u&password=p", Plan("single", (Address("h", 6379),), username="u", password="p")),
    ("redis://[::1]:7", Plan("single", (Address("::1", 7),))),
    (
        "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=no",
        Plan(
            "single",
            (Address("h", 6379),),
            tls=True,
            options={"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
        ),
    ),
    ("unix:///a%20b/r.sock", Plan("single", path="/a b/r.sock")),
    ("unix://u:p@/r.sock?db=4", Plan("single", path="/r.sock", username="u", password="p", database=4)),
    ("redis+cluster://a:1,b", Plan("cluster", (Address("a", 1), Address("b", 6379)))),
    (
        "rediss+cluster://u:p@[::1]:1,[::2]/0?socket_timeout=2.5&max_connections=9",
        Plan(
            "cluster",
            (Address("::1", 1), Address("::2", 6379)),
            tls=True,
            username="u",
            password="p",
            options={"socket_timeout": 2.5, "max_connections": 9},
        ),
    ),
    ("redis+sentinel://a/m", Plan("sentinel", (Address("a", 26379),), master="m")),
    (
        "redis+sentinel://:p@a:1,b:2/my.master-1/5?sentinel_username=s&sentinel_password=q",
        Plan(
            "sentinel",
            (Address("a", 1), Address("b", 2)),
            password="p",
            database=5,
            master="my.master-1",
            options={"sentinel_username": "s", "sentinel_password": "q"},
        ),
    ),
    (
        "redis://h?ssl_cert_reqs=none",
        Plan("single", (Address("h", 6379),), options={"ssl_cert_reqs": "none"}),
    ),
]


@pytest.mark.parametrize(("url", "expected"), ADDRESSES)
def test_what_an_address_says(url, expected):
    assert parse(url) == expected


MISTAKES = [
    ("", "expected redis://HOST"),
    ("hush", "expected redis://HOST"),
    ("http://hush", "expected redis://HOST"),
    ("redis+http://hush", "expected redis://HOST"),
    ("redis+://hush", "expected redis://HOST"),
    ("unix:/hush", "expected redis://HOST"),
    ("unix://", "expected redis://HOST"),
    ("unix://hush/x", "expected redis://HOST"),
    ("redis://:hush@h:hush", "expected redis://HOST"),
    ("redis://h:0", "expected redis://HOST"),
    ("redis://h:65536", "expected redis://HOST"),
    ("redis+cluster://", "expected redis://HOST"),
    ("redis+cluster://a,,b", "expected redis://HOST"),
    ("redis://a,b", r"more than one host: expected redis\+cluster:// or"),
    ("redis://h/hush", "expected the number of the database"),
    ("redis://h/-1", "expected the number of the database"),
    ("redis+cluster://h/1", "a Cluster has no database but 0"),
    ("redis+cluster://h?db=1", "a Cluster has no database but 0"),
    ("redis+sentinel://h", "expected the name of the master"),
    ("redis+sentinel://h/ ", "expected the name of the master"),
    ("redis://:p?hush@h", "an option is none of ssl_ca_certs, "),
    ("redis://h?socket_timeout=hush", "the value of socket_timeout cannot be used"),
    ("redis://h?socket_timeout=nan", "the value of socket_timeout cannot be used"),
    ("redis://h?socket_timeout=0", "the value of socket_timeout cannot be used"),
    ("redis://h?max_connections=0", "the value of max_connections cannot be used"),
    ("redis://h?ssl_check_hostname=hush", "the value of ssl_check_hostname cannot be used"),
    ("redis://h?ssl_cert_reqs=hush", "the value of ssl_cert_reqs cannot be used"),
    ("redis://h?db=hush", "the value of db cannot be used"),
]


@pytest.mark.parametrize(("url", "reason"), MISTAKES)
def test_a_mistake_is_one_line_that_repeats_nothing(url, reason):
    with pytest.raises(SettingsError, match=f"^redis.url: {reason}") as caught:
        parse(url)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


SECRETS = st.text(min_size=1).map(lambda text: f"hush-{text}-hush")
HOSTS = st.lists(st.tuples(st.sampled_from(["a", "b.example", "::1"]), st.integers(1, 65535)), min_size=1)


@given(
    st.sampled_from(["redis", "rediss"]), st.sampled_from(["cluster", "sentinel"]), SECRETS, SECRETS, HOSTS
)
def test_whatever_user_and_password_are_they_come_through_and_are_never_shown(
    scheme, kind, user, password, hosts
):
    listed = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
    master = "/m" if kind == "sentinel" else ""
    url = f"{scheme}+{kind}://{quote(user, safe='')}:{quote(password, safe='')}@{listed}{master}"
    plan = parse(url)
    assert (plan.username, plan.password) == (user, password)
    assert plan.addresses == tuple(hosts)
    assert plan.shown() == f"{scheme}+{kind}://{listed}{master}"
    assert "hush" not in repr(plan)
    assert parse(plan.shown()) == Plan(plan.kind, plan.addresses, tls=plan.tls, master=plan.master)


@given(
    st.text() | st.text().map(lambda rest: f"redis+sentinel://{rest}") | st.text().map("redis://{}".format)
)
def test_any_text_is_an_address_or_one_line_without_it(text):
    try:
        plan = parse(text)
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either way is right
    else:
        assert plan.path or all(0 < port < 65536 and host for host, port in plan.addresses)


def test_what_is_shown_of_a_socket_and_a_database():
    assert parse("unix://u:hush@/r.sock").shown() == "unix:///r.sock"
    assert parse("redis://u:hush@[::1]/3").shown() == "redis://[::1]:6379/3"


def test_every_option_reaches_redis_py_but_the_sentinels():
    assert all(name.startswith(("ssl_", "socket_", "sentinel_")) or name in KNOWN for name in OPTIONS)


KNOWN = {"health_check_interval", "max_connections", "timeout", "client_name"}
