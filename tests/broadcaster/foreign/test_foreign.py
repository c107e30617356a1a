"""Variables of Reverb and soketi: honoured, ignored with a line, or the start is refused."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from legato.broadcaster import config
from legato.broadcaster.foreign import settings as foreign
from legato.broadcaster.foreign.names import RULES, Honoured, Ignored, UnsupportedSetting
from legato.protocol.settings import SettingsError
from tests.broadcaster.test_config import APP, REVERB

SOKETI = {f"SOKETI_DEFAULT_APP_{name}": "x" for name in ("ID", "KEY", "SECRET")}


def load(environ: dict[str, str], path: str | None = None) -> config.Settings:
    return config.load(argparse.Namespace(config=path), environ)


def value(key: str, environ: dict[str, str]) -> Any:
    loaded = load(environ)
    table, _, field = key.partition(".")
    return getattr(loaded.apps[0] if table == "apps" else getattr(loaded, table), field)


HONOURED = [
    ("REVERB_SERVER_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
    ("REVERB_SERVER_PORT", "9000", "server.port", 9000),
    ("REVERB_SERVER_PATH", "ws/", "server.path", "/ws"),
    ("REVERB_SERVER_PATH", "(null)", "server.path", ""),
    ("REVERB_MAX_REQUEST_SIZE", "10000", "server.max_request_bytes", 10_000),
    ("REVERB_APP_ID", "7", "apps.id", "7"),
    ("REVERB_APP_KEY", "key", "apps.key", "key"),
    ("REVERB_APP_SECRET", "secret", "apps.secret", "secret"),
    ("REVERB_APP_PING_INTERVAL", "60", "apps.activity_timeout", 60),
    ("REVERB_APP_ACTIVITY_TIMEOUT", "30", "apps.activity_timeout", 30),
    ("REVERB_APP_MAX_CONNECTIONS", "500", "apps.max_connections", 500),
    ("REVERB_APP_MAX_CONNECTIONS", "null", "apps.max_connections", 0),
    ("REVERB_APP_MAX_MESSAGE_SIZE", "10000", "server.max_message_bytes", 10_000),
    ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "members", "apps.client_events", True),
    ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "all", "apps.client_events", True),
    ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none", "apps.client_events", False),
    ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "misspelt", "apps.client_events", False),
    (
        "REVERB_APP_ALLOWED_ORIGINS",
        "a.test, preview-*.b.test",
        "apps.allowed_origins",
        ("a.test", "preview-*.b.test"),
    ),
    ("REVERB_ALLOWED_ORIGINS", "a.test", "apps.allowed_origins", ("a.test",)),
    ("SOKETI_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
    ("SOKETI_PORT", "6001", "server.port", 6001),
    ("SOKETI_PATH_PREFIX", "/ws", "server.path", "/ws"),
    ("SOKETI_DEFAULT_APP_ID", "7", "apps.id", "7"),
    ("SOKETI_DEFAULT_APP_KEY", "key", "apps.key", "key"),
    ("SOKETI_DEFAULT_APP_SECRET", "secret", "apps.secret", "secret"),
    ("SOKETI_DEFAULT_APP_ENABLED", "0", "apps.enabled", False),
    ("SOKETI_DEFAULT_APP_MAX_CONNS", "5", "apps.max_connections", 5),
    ("SOKETI_DEFAULT_APP_MAX_CONNS", "-1", "apps.max_connections", 0),
    ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "false", "apps.client_events", False),
    ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "1", "apps.client_events", True),
    ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "3", "apps.client_events_per_second", 3),
    ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "-1", "apps.client_events_per_second", 10),
    ("SOKETI_EVENT_MAX_BATCH_SIZE", "3", "apps.max_events_per_batch", 3),
    ("SOKETI_EVENT_MAX_CHANNELS_AT_ONCE", "3", "apps.max_channels_per_event", 3),
    ("SOKETI_EVENT_MAX_SIZE_IN_KB", "1.5", "apps.max_event_bytes", 1536),
    ("SOKETI_EVENT_MAX_NAME_LENGTH", "100", "apps.max_event_name_length", 100),
    ("SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH", "300", "apps.max_channel_name_length", 300),
    ("SOKETI_PRESENCE_MAX_MEMBERS", "3", "apps.max_presence_members", 3),
    ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "2", "apps.max_user_info_bytes", 2048),
    ("SOKETI_CHANNEL_CACHE_TTL", "60", "apps.cache_seconds", 60),
    ("SOKETI_METRICS_ENABLED", "false", "metrics.enabled", False),
    ("SOKETI_METRICS_HOST", "::1", "metrics.host", "::1"),
    ("SOKETI_METRICS_SERVER_PORT", "9601", "metrics.port", 9601),
    ("SOKETI_DEBUG", "1", "log.level", "debug"),
    ("SOKETI_DEBUG", "false", "log.level", "info"),
    ("SOKETI_SHUTDOWN_GRACE_PERIOD", "3000", "server.drain_seconds", 3),
]


@pytest.mark.parametrize(("name", "text", "key", "expected"), HONOURED)
def test_an_honoured_variable_sets_its_setting(name, text, key, expected):
    base = SOKETI if name.startswith("SOKETI_") else REVERB
    assert value(key, base | {name: text}) == expected


def test_a_certificate_needs_both_variables():
    loaded = load(SOKETI | {"SOKETI_SSL_CERT": "c.pem", "SOKETI_SSL_KEY": "k.pem"}).server
    assert (loaded.tls_cert, loaded.tls_key) == ("c.pem", "k.pem")
    assert {name for name, rule in RULES.items() if isinstance(rule, Honoured)} == {
        "SOKETI_SSL_CERT",
        "SOKETI_SSL_KEY",
        *(name for name, *_ in HONOURED),
    }


def test_of_two_limits_the_stricter_one_counts():
    both = {"REVERB_APP_PING_INTERVAL": "60", "REVERB_APP_ACTIVITY_TIMEOUT": "30"}
    assert value("apps.activity_timeout", REVERB | both) == 30
    assert value("apps.activity_timeout", REVERB | both | {"REVERB_APP_PING_INTERVAL": "20"}) == 20


RATES = [
    ({}, (60, 60, False)),
    ({"REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS": "5", "REVERB_APP_RATE_LIMIT_DECAY_SECONDS": "2"}, (5, 2, False)),
    (
        {"REVERB_APP_RATE_LIMITING_MAX_ATTEMPTS": "5", "REVERB_APP_RATE_LIMITING_DECAY_SECONDS": "2"},
        (5, 2, False),
    ),
    ({"REVERB_APP_RATE_LIMIT_TERMINATE": "true"}, (60, 60, True)),
    ({"REVERB_APP_RATE_LIMITING_TERMINATE_ON_LIMIT": "yes"}, (60, 60, True)),
]


@pytest.mark.parametrize(("extra", "expected"), RATES)
def test_a_rate_limit_counts_if_it_is_enabled(extra, expected):
    for text, found in (
        ("true", expected),
        ("on", expected),
        ("false", (0, 60, False)),
        ("", (0, 60, False)),
    ):
        (app,) = load(REVERB | extra | {"REVERB_APP_RATE_LIMITING_ENABLED": text}).apps
        assert (app.max_messages, app.max_messages_seconds, app.close_over_max_messages) == found


REFUSED = [
    ("REVERB_SCALING_CHANNEL", "blue", "reverb", r"set redis\.prefix"),
    ("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "5", "-1", "at a proxy"),
    ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "5", "-1", "at a proxy"),
    ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "true", "false", r"set apps\.authorized_seconds"),
    ("SOKETI_DEFAULT_APP_WEBHOOKS", '[{"url":"x"}]', "[]", r"set apps\.webhooks"),
    ("SOKETI_SSL_PASS", "hush-hush", "", "without a passphrase"),
    ("SOKETI_SSL_CA", "ca.pem", "", "whole chain"),
    ("SOKETI_ADAPTER_DRIVER", "redis", "local", r"set redis\.url"),
    ("SOKETI_ADAPTER_REDIS_PREFIX", "p", "", r"set redis\.prefix"),
    ("SOKETI_DB_REDIS_KEY_PREFIX", "p", "", r"set redis\.prefix"),
    ("SOKETI_DB_REDIS_SENTINELS", "[1]", "", r"redis\+sentinel"),
    ("SOKETI_DB_REDIS_CLUSTER_NODES", "[1]", "[]", r"redis\+cluster"),
    ("SOKETI_APP_MANAGER_DRIVER", "mysql", "array", r"set app_source\.database_url"),
    ("SOKETI_MODE", "worker", "full", "remove it"),
]


@pytest.mark.parametrize(("name", "bad", "good", "reason"), REFUSED)
def test_a_variable_that_cannot_be_honoured_safely_stops_the_start(name, bad, good, reason):
    assert load(REVERB | {name: good}) == load(REVERB)
    with pytest.raises(SettingsError, match=f"^environment: {name}: .*{reason}") as caught:
        load(REVERB | {name: bad})
    assert "hush" not in str(caught.value)


def test_each_variable_that_stops_the_start_was_tried():
    assert {name for name, *_ in REFUSED} == {
        name for name, rule in RULES.items() if isinstance(rule, UnsupportedSetting)
    }


MISTAKES = [
    ("REVERB_APP_MAX_CONNECTIONS", "0", "expected a number from 1 on: 0 would mean no limit here"),
    ("REVERB_APP_MAX_CONNECTIONS", "many", "expected a whole number, got 'many'"),
    ("REVERB_APP_MAX_MESSAGE_SIZE", "10KB", "Expected `int`"),
    ("REVERB_APP_ACTIVITY_TIMEOUT", "0", "Expected `int` >= 1"),
    ("REVERB_APP_ID", "a b", "Expected `str` matching"),
    ("REVERB_SERVER_PORT", "70000", "Expected `int` <= 65535"),
    ("SOKETI_EVENT_MAX_SIZE_IN_KB", "big", "expected a number, got 'big'"),
    ("SOKETI_SHUTDOWN_GRACE_PERIOD", "inf", "expected a number, got 'inf'"),
]


@pytest.mark.parametrize(("name", "text", "reason"), MISTAKES)
def test_a_mistake_names_the_variable_that_was_set(name, text, reason):
    with pytest.raises(SettingsError, match=f"^environment: {name}: ") as caught:
        load(REVERB | {name: text})
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "x"])
def test_an_invalid_rate_limit(text):
    environ = {"REVERB_APP_RATE_LIMITING_ENABLED": "1", "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS": text}
    with pytest.raises(SettingsError, match=r"^environment: REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS: expected a"):
        load(REVERB | environ)


def test_an_origin_that_cannot_be_used_stops_the_start():
    with pytest.raises(SettingsError, match=r"^environment: application: allowed_origins: '\*a\.test'"):
        load(REVERB | {"REVERB_ALLOWED_ORIGINS": "*a.test"})


def test_own_names_take_precedence_and_options_apply_to_the_only_application(tmp_path):
    loaded = load(REVERB | {"REVERB_SERVER_PORT": "9000", "LEGATO_SERVER_PORT": "1", "LEGATO_APP_KEY": "own"})
    assert (loaded.server.port, loaded.apps[0].key) == (1, "own")
    path = tmp_path / "legato.toml"
    path.write_text(APP + "max_connections = 7\n")
    (app,) = load({"REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM": "none"}, str(path)).apps
    assert (app.id, app.client_events, app.max_connections) == ("a", False, 7)
    path.write_text(APP + APP.replace('"a"', '"b"').replace('"ka"', '"kb"'))
    with pytest.raises(
        SettingsError, match=r"_EVENTS_FROM: of which application\? Set apps\.client_events instead"
    ):
        load({"REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM": "none"}, str(path))


def test_ignored_and_unknown_variables_are_logged(caplog):
    caplog.set_level("INFO", "legato.settings")
    environ = REVERB | {"REVERB_HOST": "a.test", "SOKETI_QUEUE_DRIVER": "sync", "PATH": "/bin"}
    strange = {"REVERB_APP_MAX_CONECTIONS": "5", "SOKETI_NONE": "x"}
    load(environ | strange)
    assert foreign.tell(environ | strange) == REVERB | {"PATH": "/bin"}
    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("INFO", "WARNING")
    assert {"SOKETI_QUEUE_DRIVER", "REVERB_HOST"} <= set(first.message.replace(",", "").split())
    assert second.message.endswith("REVERB_APP_MAX_CONECTIONS, SOKETI_NONE")
    caplog.clear()
    assert foreign.tell(REVERB) == REVERB
    assert not caplog.records


@pytest.mark.parametrize(
    ("extra", "url"),
    [
        ({}, "redis://h:6379/0"),
        ({"REVERB_SCALING_ENABLED": "true"}, "redis://h:6379/0"),
        ({"REVERB_SCALING_ENABLED": "true", "REDIS_HOST": ""}, "redis://127.0.0.1:6379/0"),
        ({"REVERB_SCALING_ENABLED": "false"}, ""),
        ({"REVERB_SCALING_ENABLED": "false", "REDIS_URL": "redis://x"}, "redis://x"),
        ({"REVERB_SCALING_ENABLED": "null"}, "redis://h:6379/0"),
        ({"REDIS_HOST": ""}, ""),
    ],
)
def test_redis_counts_unless_scaling_is_off(extra, url):
    assert load(REVERB | {"REDIS_HOST": "h"} | extra).redis.url == url


def test_every_variable_that_is_ignored_is_accepted():
    names = [name for name, rule in RULES.items() if isinstance(rule, Ignored)]
    assert foreign.ignored(dict.fromkeys(names, "0")) == names
    assert load(REVERB | dict.fromkeys(names, "0")) == load(REVERB)
