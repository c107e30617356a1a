import argparse

import pytest

from legato.broadcaster import config
from legato.broadcaster.config import Settings
from legato.protocol.apps import App
from legato.protocol.settings import SettingsError

REVERB = {"REVERB_APP_ID": "1", "REVERB_APP_KEY": "k", "REVERB_APP_SECRET": "hush-hush"}
APP = '[[apps]]\nid="a"\nkey="ka"\nsecret="hush-hush"\n'


def load(environ=None, **flags) -> Settings:
    names = ("config", "host", "port", "metrics_port", "processes")
    args = argparse.Namespace(**{name: flags.get(name) for name in names})
    return config.load(args, REVERB if environ is None else environ)


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "legato.toml"
        path.write_text(text)
        return str(path)

    return write


def test_an_environment_of_reverb_is_enough():
    environ = REVERB | {
        "REVERB_SERVER_HOST": "0.0.0.0",
        "REVERB_SERVER_PORT": "9000",
        "REVERB_SERVER_PATH": "ws/",
        "REDIS_URL": "redis://x",
    }
    loaded = load(environ)
    assert loaded.apps == (App(id="1", key="k", secret="hush-hush"),)
    assert (loaded.server.host, loaded.server.port, loaded.server.path) == ("0.0.0.0", 9000, "/ws")
    assert loaded.redis.url == "redis://x"


def test_options_take_precedence():
    loaded = load(REVERB | {"REVERB_SERVER_PORT": "9000"}, port=1, host="::1", metrics_port=2)
    assert (loaded.server.port, loaded.server.host, loaded.metrics.port) == (1, "::1", 2)


def test_own_names_take_precedence_over_reverbs():
    assert load(REVERB | {"LEGATO_APP_KEY": "own"}).apps[0].key == "own"


def test_a_file_with_several_apps(file):
    other = APP.replace('"a"', '"b"').replace('"ka"', '"kb"')
    loaded = load({}, config=file(APP + other + '[auth]\napp = "b"'))
    assert [app.id for app in loaded.apps] == ["a", "b"]
    assert loaded.app("").id == "a"
    assert loaded.app(loaded.auth.app).id == "b"


def test_the_environments_app_replaces_the_files_of_the_same_id(file):
    loaded = load(REVERB | {"REVERB_APP_ID": "a"}, config=file(APP))
    assert [app.key for app in loaded.apps] == ["k"]


ERRORS = [
    ({}, {}, r"settings: apps: no application; expected \[\[apps\]\]"),
    ({"REVERB_APP_ID": "1"}, {}, "environment: LEGATO_APP_KEY .* is missing"),
    (REVERB | {"REVERB_APP_ID": "a b"}, {}, "environment: REVERB_APP_ID: Expected `str` matching"),
    (REVERB | {"REVERB_SERVER_PORT": "x"}, {}, "environment: REVERB_SERVER_PORT: Expected `int`"),
    (
        REVERB | {"LEGATO_SERVER_PATH": "no-slash"},
        {},
        "environment: LEGATO_SERVER_PATH: Expected `str` matching",
    ),
    (REVERB | {"LEGATO_AUTH_APP": "9"}, {}, "auth.app: no such application"),
    (REVERB | {"LEGATO_CHAT_APP": "9"}, {}, "chat.app: no such application"),
    (REVERB | {"LEGATO_SERVER_TLS_CERT": "x"}, {}, "expected both tls_cert and tls_key"),
    (
        {"LEGATO_APP_SOURCE_REDIS_HASH": "x", "REDIS_URL": "redis://x"}
        | {"LEGATO_APP_SOURCE_DATABASE_URL": "sqlite:///hush-hush"},
        {},
        "app_source: expected only one of redis_hash and database_url",
    ),
    (
        REVERB | {"LEGATO_APP_SOURCE_DATABASE_TABLE": "x; DROP"},
        {},
        "LEGATO_APP_SOURCE_DATABASE_TABLE: Expected `str` matching",
    ),
    (REVERB | {"LEGATO_APP_SOURCE_REDIS_HASH": "x"}, {}, "app_source.redis_hash: expected redis.url with it"),
    (REVERB | {"LEGATO_AUTH_JWT_SECRET": "x", "LEGATO_AUTH_JWKS_URL": "y"}, {}, "auth: expected only one of"),
    (REVERB, {"processes": 2}, "server.processes: more than one needs redis.url"),
    (REVERB, {"port": 70_000}, "server.port: Expected `int` <= 65535"),
    (REVERB, {"config": "/nonexistent.toml"}, "/nonexistent.toml: cannot be read: No such file"),
]


@pytest.mark.parametrize(("environ", "flags", "reason"), ERRORS)
def test_errors_are_one_line_without_secrets(environ, flags, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        load(environ, **flags)
    assert "\n" not in str(caught.value)
    assert "hush-hush" not in str(caught.value)


FILE_ERRORS = [
    (APP + APP, "two applications have the same id"),
    (APP + APP.replace('id="a"', 'id="b"'), "two applications have the same key"),
    (APP + "x = 1", "apps\\[0\\]: .*`x`"),
    (
        APP + "[chat]\nmax_message_characters = 0",
        "legato.toml: chat.max_message_characters: Expected `int` >= 1",
    ),
    (
        APP + "[chat]\nmax_message_characters = 1000001",
        "chat.max_message_characters: Expected `int` <= 1000000",
    ),
    (APP + "[chat]\nmax_history_turns = 1001", "chat.max_history_turns: Expected `int` <= 1000"),
    (APP + "[chat]\nmax_history_characters = 0", "chat.max_history_characters: Expected `int` >= 1"),
    (APP + "[server]\nport = 'x'", "legato.toml: server.port: Expected `int`, got `str`"),
    (APP + "[server]\nx = 1", "legato.toml: server: .*`x`"),
]


@pytest.mark.parametrize(("text", "reason"), FILE_ERRORS)
def test_errors_in_a_file_name_it(file, text, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        load({}, config=file(text))
    assert "legato.toml" in str(caught.value)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "legato.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load(config=str(path))


def test_secrets_in_the_environment_keep_what_the_file_says_of_the_application(file):
    path = file(
        APP.replace('"hush-hush"', '"from the file"') + 'allowed_origins = ["chat.test"]\nmax_connections = 5'
    )
    for environ in ({"LEGATO_APP_SECRET": "s"}, {"LEGATO_APP_ID": "a", "LEGATO_APP_SECRET": "s"}):
        (app,) = load(environ, config=path).apps
        assert (app.id, app.key, app.secret) == ("a", "ka", "s")
        assert (app.allowed_origins, app.max_connections) == (("chat.test",), 5)
    both = load(REVERB, config=path).apps
    assert [(app.id, app.allowed_origins) for app in both] == [("1", ("*",)), ("a", ("chat.test",))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (APP + 'allowed_origins = ["a b"]', r"apps\[0\]: allowed_origins: 'a b': expected a host"),
        (APP + 'allowed_origins = ["*example.com"]', r"expected '\*\.example\.com'"),
        (
            '[server]\ncors_origins = ["app.test"]\n' + APP,
            r"server: cors_origins: 'app.test': expected a scheme",
        ),
        (
            '[server]\ncors_origins = ["https://a.test/x"]\n' + APP,
            r"server: cors_origins: 'https://a.test/x'",
        ),
    ],
)
def test_an_origin_that_can_never_match_stops_the_start(file, text, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        load({}, config=file(text))
    assert "\n" not in str(caught.value)


def test_origins_of_the_environment():
    assert load(
        REVERB | {"LEGATO_SERVER_CORS_ORIGINS": "https://a.test/, https://*.b.test"}
    ).server.cors_origins == (
        "https://a.test/",
        "https://*.b.test",
    )
    with pytest.raises(SettingsError, match=r"cors_origins: 'a.test': expected a scheme"):
        load(REVERB | {"LEGATO_SERVER_CORS_ORIGINS": "a.test"})


DEV = {"LEGATO_DEV_ENABLED": "true", "LEGATO_AUTH_JWT_SECRET": "s" * 32}


def test_in_development_only_pages_of_its_own_hosts_connect(file):
    assert load(REVERB).apps[0].allowed_origins == ("*",)
    assert load(REVERB | DEV).apps[0].allowed_origins == config.LOCAL_HOSTS
    assert load(REVERB | DEV | {"LEGATO_DEV_HOSTS": "mine.test"}).apps[0].allowed_origins == ("mine.test",)
    path = file(APP + 'allowed_origins = ["chat.test"]')
    assert load(DEV, config=path).apps[0].allowed_origins == ("chat.test",)
    with pytest.raises(SettingsError, match="dev: hosts: 'a b': expected a host"):
        load(REVERB | DEV | {"LEGATO_DEV_HOSTS": "a b"})
