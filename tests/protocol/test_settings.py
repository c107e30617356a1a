from typing import Annotated

import msgspec
import pytest

from legato.protocol import settings
from legato.protocol.settings import SettingsError


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    hosts: tuple[str, ...] = ()
    debug: bool = False


class Kind(msgspec.Struct, frozen=True):
    server: Server = Server()
    redis: settings.Redis = settings.Redis()
    apps: tuple[settings.Log, ...] = ()


def load(text=None, environ=None, overrides=None, aliases=None, read=None):
    return settings.load(
        Kind,
        path="legato.toml" if text is not None or read is not None else None,
        read=read or (lambda _path: text),
        environ=environ or {},
        aliases=aliases or {"REDIS_URL": "redis.url"},
        overrides=overrides or {},
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


def test_an_empty_variable_counts_as_absent():
    assert load('[redis]\nurl = "file"', {"REDIS_URL": ""}).redis.url == "file"


def test_the_environment_has_only_text():
    environ = {"LEGATO_SERVER_PORT": "1", "LEGATO_SERVER_DEBUG": "true", "LEGATO_SERVER_HOSTS": "a, b,"}
    assert load(environ=environ).server == Server(port=1, hosts=("a", "b"), debug=True)


ERRORS = [
    ({"text": "x ="}, "legato.toml: not valid TOML"),
    ({"text": "[sever]\nport=1"}, "legato.toml: sever: no such table; expected one of app_source, apps, "),
    ({"text": "[server]\nprot=1"}, "legato.toml: server: .*`prot`"),
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
        "environment: LEGATO_SERVER_PROT: no such setting; expected one of LEGATO_SERVER_PORT, ",
    ),
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
