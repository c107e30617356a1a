from typing import Annotated

import msgspec
import pytest

from legato.protocol import settings
from legato.protocol.settings import SettingsError
from legato.protocol.unknown_keys import unknown_keys


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    hosts: tuple[str, ...] = ()
    debug: bool = False
    costs: dict[str, settings.Price] = {}


class Kind(msgspec.Struct, frozen=True):
    server: Server = Server()
    redis: settings.Redis = settings.Redis()
    apps: tuple[settings.Log, ...] = ()


def load(text=None, environ=None, overrides=None, aliases=None, read=None, sources=None):
    return settings.load(
        Kind,
        path="legato.toml" if text is not None or read is not None else None,
        read=read or (lambda _path: text),
        environ=environ or {},
        aliases=aliases or {"REDIS_URL": "redis.url"},
        overrides=overrides or {},
        sources=sources,
    )


def test_defaults_without_anything():
    assert load() == Kind()


def test_the_file_is_read():
    assert load('[server]\nport = 1\nhosts = ["a"]').server == Server(port=1, hosts=("a",))


def test_tables_of_the_other_side_are_left_alone():
    assert load("[worker]\nanything = 1") == Kind()


def test_precedence_from_the_command_line_down_to_the_default():
    text, alias = '[redis]\nurl = "file"', {"REDIS_URL": "alias"}
    own = alias | {"LEGATO_REDIS_URL": "own"}
    assert load(text).redis.url == "file"
    assert load(text, alias).redis.url == "alias"
    assert load(text, own).redis.url == "own"
    assert load(text, own, {"redis.url": "flag"}).redis.url == "flag"
    assert load(text, own, {"redis.url": None}).redis.url == "own"


def test_the_source_of_each_setting_is_told():
    text = '[server]\nport = 1\nhosts = []\n[redis]\nurl = "x"\n[[apps]]\nlevel = "y"\n[worker]\nqueue = "z"'
    sources = {}
    load(text, {"LEGATO_SERVER_DEBUG": "1", "REDIS_URL": "x"}, {"server.port": 2}, sources=sources)
    assert sources == {
        "server.port": settings.COMMAND_LINE,
        "server.hosts": "legato.toml",
        "server.debug": "LEGATO_SERVER_DEBUG",
        "redis.url": "REDIS_URL",
        "apps[0].level": "legato.toml",
    }


def test_an_empty_variable_counts_as_absent():
    assert load('[redis]\nurl = "file"', {"REDIS_URL": ""}).redis.url == "file"


def test_the_environment_has_only_text():
    environ = {"LEGATO_SERVER_PORT": "1", "LEGATO_SERVER_DEBUG": "true", "LEGATO_SERVER_HOSTS": "a, b,"}
    assert load(environ=environ).server == Server(port=1, hosts=("a", "b"), debug=True)


ERRORS = [
    ({"text": "x ="}, "legato.toml: not valid TOML"),
    ({"text": "[sever]\nport=1"}, r"legato.toml: sever: no such table; did you mean server\?"),
    ({"text": "[wobble]\nport=1"}, "legato.toml: wobble: no such table; expected one of app_source, apps, "),
    ({"text": "[server]\nprot=1"}, r"legato.toml: server.prot: no such setting; did you mean port\?"),
    ({"text": "[server]\nx=1"}, "server.x: no such setting; expected one of port, hosts, debug, costs"),
    ({"text": "[[apps]]\nlevle='info'"}, r"apps.0..levle: no such setting; did you mean level\?"),
    ({"text": "[server.costs.big]\ninptu=1"}, r"server.costs.big.inptu: .* did you mean input\?"),
    ({"text": "[server]\ncosts=1"}, "server.costs: Expected `object`, got `int`"),
    ({"text": '[server]\nport="x"'}, "legato.toml: server.port: Expected `int`, got `str`"),
    ({"text": "[server]\nport=70000"}, "legato.toml: server.port: Expected `int` <= 65535"),
    ({"text": "server=1"}, "legato.toml: server: Expected `object`, got `int`"),
    ({"text": "server=1", "environ": {"LEGATO_SERVER_PORT": "1"}}, "legato.toml: server: Expected `object`"),
    ({"text": "apps=[1]"}, r"legato.toml: apps\[0\]: Expected `object`"),
    ({"environ": {"LEGATO_SERVER_PORT": "x"}}, "environment: LEGATO_SERVER_PORT: Expected `int`"),
    ({"environ": {"LEGATO_SERVER_PORT": "-1"}}, "environment: LEGATO_SERVER_PORT: Expected `int` >= 0"),
    ({"overrides": {"server.port": -1}}, "settings: server.port: Expected `int` >= 0"),
    (
        {"environ": {"LEGATO_SERVER_PROT": "1"}},
        r"environment: LEGATO_SERVER_PROT: no such setting; did you mean LEGATO_SERVER_PORT\?",
    ),
    (
        {"environ": {"LEGATO_SERVER_X": "1"}},
        "environment: LEGATO_SERVER_X: no such setting; expected one of LEGATO_SERVER_PORT, ",
    ),
    ({"environ": {"LEGATO_APP_SECRT": "1"}}, r"LEGATO_APP_SECRT: .* did you mean LEGATO_APP_SECRET\?"),
    ({"environ": {"LEGATO_SERVR_PORT": "1"}}, r"LEGATO_SERVR_PORT: .* did you mean LEGATO_SERVER_\.\.\.\?"),
    ({"environ": {"LEGATO_X": "1"}}, "LEGATO_X: no such setting; expected LEGATO_TABLE_KEY"),
]


@pytest.mark.parametrize("name", ["LEGATO_SERVR_PORT", "LEGATO_APP_SECRT", "LEGATO_APPS_ID", "LEGATO_X"])
def test_a_misspelt_name_of_ours_is_a_mistake(name):
    with pytest.raises(SettingsError, match=f"environment: {name}: no such setting"):
        load(environ={name: "x"})


def missing(path):
    raise FileNotFoundError(2, "No such file or directory", path)


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (missing, "legato.toml: cannot be read: No such file or directory"),
        (lambda _path: b"\xff".decode(), "legato.toml: is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read(read, reason):
    with pytest.raises(SettingsError, match=reason):
        load(read=read)


def test_what_is_no_table_of_ours_is_nobodys_mistake():
    assert load(environ={"LEGATO_DATA": "x", "LEGATO_WORKER_X": "y", "LEGATO_APP_ID": "z"}) == Kind()


@pytest.mark.parametrize(("arguments", "reason"), ERRORS)
def test_mistakes_are_one_line_with_source_key_and_expectation(arguments, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


def test_a_table_may_take_any_key():
    class Loose(msgspec.Struct):
        inner: Server = Server()

    assert list(unknown_keys({"more": 1, "inner": {"prot": 1}}, Loose, "loose")) == [
        ("loose.inner", "prot", Server.__struct_fields__)
    ]
