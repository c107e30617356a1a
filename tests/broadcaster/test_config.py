import argparse
import base64

import pytest

from legato.broadcaster import config
from legato.broadcaster.config import Chat, Settings
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
    (APP + "x = 1", "apps\\[0\\].x: no such setting"),
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
    (
        APP + "[chat]\nallow = ['model', 'temperature']",
        "chat: allow: 'temperature': expected some of agent, model, system, max_tokens, thinking, channel,",
    ),
    (APP + "[chat]\nagents = ['a']", "chat: agents: expected 'agent' in allow with it"),
    (APP + "[chat]\nallow = ['agent']\nmodels = ['m']", "chat: models: expected 'model' in allow with it"),
    (APP + "[chat]\nchannels = ['public-*']", "chat: channels: 'public-\\*': Expected a private or presence"),
    (APP + "[chat]\nchannels = ['*']", "chat: channels: '\\*': The channel name has"),
    (APP + "[chat]\nattachment_hosts = ['a b']", "chat: attachment_hosts: 'a b': expected a host"),
    (APP + "[chat.prices.m]\ninput = -1\noutput = 2", "chat.prices\\[...\\].input: Expected `float` >= 0"),
    (APP + "[chat]\ncurrency = '$'", "chat.currency: Expected `str` matching"),
    (APP + "[chat]\nmax_attachments = 21", "chat.max_attachments: Expected `int` <= 20"),
    (
        APP + "[chat]\nallow = ['attachments']\nmax_attachment_bytes = 786433",
        "chat.max_attachment_bytes: expected at most 786432: 3/4 of server.max_request_bytes",
    ),
    (APP + "[server]\nport = 'x'", "legato.toml: server.port: Expected `int`, got `str`"),
    (APP + "[server]\nx = 1", "legato.toml: server.x: no such setting"),
]


CHATS = [
    ("allow = ['attachments']\nmax_attachment_bytes = 786432", {}),
    ("max_attachment_bytes = 786433", {}),
    ("allow = ['attachments']\n[server]\nmax_request_bytes = 699052", {}),
    ("channels = ['private-team.*', 'presence-room']", {}),
    ("", {"LEGATO_CHAT_ALLOW": "agent, model", "LEGATO_CHAT_MODELS": "small,large"}),
]


@pytest.mark.parametrize(("text", "environ"), CHATS)
def test_options_that_go_together(file, text, environ):
    chat = load(environ, config=file(APP + "[chat]\n" + text)).chat
    if environ:
        assert (chat.allow, chat.models, chat.agents) == (("agent", "model"), ("small", "large"), ())
    else:
        assert chat != Chat()


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


def test_the_source_of_each_setting_is_told(file):
    def sources(environ, text, **flags):
        found = {}
        names = ("config", "host", "port", "metrics_port", "processes")
        args = argparse.Namespace(**{name: flags.get(name) for name in names})
        args.config = file(text)
        config.load(args, environ, found)
        return {key: source.replace(args.config, "file") for key, source in found.items()}

    two = APP + '[[apps]]\nid="b"\nkey="kb"\nsecret="hush"\n'
    environ = {
        "LEGATO_APP_ID": "b",
        "LEGATO_APP_SECRET": "own",
        "REVERB_APP_SECRET": "theirs",
        "REVERB_APP_MAX_CONNECTIONS": "3",
        "REVERB_APP_RATE_LIMITING_ENABLED": "true",
        "REVERB_SERVER_HOST": "::1",
        "REDIS_HOST": "x",
    }
    assert sources(environ, two, port=1) == {
        **dict.fromkeys(("apps.a.id", "apps.a.key", "apps.a.secret", "apps.b.key"), "file"),
        "apps.b.id": "LEGATO_APP_ID",
        "apps.b.secret": "LEGATO_APP_SECRET",
        "apps.b.max_connections": "REVERB_APP_MAX_CONNECTIONS",
        **dict.fromkeys(
            ("apps.b.max_messages", "apps.b.max_messages_seconds", "apps.b.close_over_max_messages"),
            "REVERB_APP_RATE_LIMITING_ENABLED",
        ),
        "server.host": "REVERB_SERVER_HOST",
        "server.port": "command line",
        "redis.url": "REDIS_HOST",
    }
    for environ, source in (({"REDIS_URL": "redis://x"}, "REDIS_URL"), ({}, "REVERB_SCALING_ENABLED")):
        assert sources(environ | {"REVERB_SCALING_ENABLED": "true"}, APP)["redis.url"] == source


def test_secrets_do_not_show_in_the_settings_text():
    environ = {
        **{f"LEGATO_APP_{name}": "geheim" for name in ("KEY", "SECRET")},
        "LEGATO_APP_ID": "1",
        "REDIS_URL": "redis://:geheim@h/2",
        "LEGATO_AUTH_JWT_SECRET": "geheim" * 6,
        "LEGATO_AUTH_ENCRYPTION_MASTER_KEY": base64.b64encode(b"geheim".ljust(32)).decode(),
        "LEGATO_CHAT_DATABASE_URL": "postgresql://ann:geheim@h/x",
    }
    text = repr(config.load(argparse.Namespace(), environ))
    assert "geheim" not in text.replace("key='geheim'", "")
    assert environ["LEGATO_AUTH_ENCRYPTION_MASTER_KEY"] not in text
    assert "url='redis://***@h/2'" in text
    assert "require_exp=True" in text
