"""Settings from file, environment and flags; a mistake is one line that names its place and no secret."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from legato.protocol.settings import SettingsError
from legato.worker import config, options

if TYPE_CHECKING:
    from pathlib import Path

ENOUGH = {"REDIS_URL": "redis://h", "LEGATO_PROVIDER_NAME": "scripted"}
CLAUDE = {"REDIS_URL": "redis://h", "ANTHROPIC_API_KEY": "sk-ant-api03_x"}


def load(*flags: str, **environ: str) -> config.Settings:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return config.load(parser.parse_args(flags), environ)


def test_defaults() -> None:
    loaded = load(REDIS_URL="redis://h", ANTHROPIC_API_KEY="k")
    assert loaded.provider.name == "anthropic"
    assert loaded.provider.model == "claude-sonnet-4-6"
    assert loaded.worker == config.Worker(
        queue="ai-streaming",
        concurrency=16,
        processes=1,
        tries=2,
        timeout=120,
        lease=30,
        retention=3600,
        drain_seconds=30,
    )
    assert loaded.database.url == "sqlite:///legato.db"


def test_works_from_other_commands_namespaces() -> None:
    loaded = config.load(argparse.Namespace(config=None), ENOUGH)
    assert loaded.worker.processes == 1


def test_flag_over_environment_over_file(tmp_path: Path) -> None:
    path = tmp_path / "legato.toml"
    path.write_text('[worker]\nqueue = "file"\nconcurrency = 3\ntries = 9\n[server]\nport = 1\n')
    loaded = load(
        "--config", str(path), "--queue", "flag", **ENOUGH, LEGATO_WORKER_QUEUE="env", LEGATO_WORKER_TRIES="5"
    )
    assert (loaded.worker.queue, loaded.worker.concurrency, loaded.worker.tries) == ("flag", 3, 5)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("REDIS_URL", lambda s: s.redis.url),
        ("DATABASE_URL", lambda s: s.database.url),
        ("ANTHROPIC_API_KEY", lambda s: s.provider.api_key),
        ("ANTHROPIC_BASE_URL", lambda s: s.provider.base_url),
    ],
)
def test_common_environment_names(name: str, where: object) -> None:
    assert callable(where)
    assert where(load(**{**ENOUGH, name: "redis://x"})) == "redis://x"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, "redis.url: is not set"),
        ({"REDIS_URL": "redis://h"}, "provider.api_key: is not set; set ANTHROPIC_API_KEY"),
        *(
            (
                {**CLAUDE, "ANTHROPIC_BASE_URL": url},
                "provider.base_url: expected an http:// or https:// address",
            )
            for url in (
                "geheim",
                "ftp://geheim",
                "http://",
                "http://[geheim",
                "http://geheim:x",
                "http://geheim\n",
            )
        ),
        *(
            ({**CLAUDE, "ANTHROPIC_API_KEY": key}, "provider.api_key: has a character that no key has")
            for key in ("geheim\n", "geheim geheim", "gehéim", "\x00geheim")
        ),
        ({**ENOUGH, "LEGATO_PROVIDER_NAME": "oracle"}, "LEGATO_PROVIDER_NAME: Invalid enum value 'oracle'"),
        ({**ENOUGH, "LEGATO_WORKER_CONCURRENCY": "0"}, "LEGATO_WORKER_CONCURRENCY: Expected `int` >= 1"),
        ({**ENOUGH, "LEGATO_WORKER_TIMEOUT": "soon"}, "LEGATO_WORKER_TIMEOUT: Expected `float`"),
        ({**ENOUGH, "LEGATO_WORKER_QUEUE": "a{b}"}, "LEGATO_WORKER_QUEUE"),
    ],
)
def test_mistake_in_the_environment(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://api.anthropic.com", "http://127.0.0.1:8080/v1", "http://[::1]:1"])
def test_address_and_key_as_they_should_be(url: str) -> None:
    loaded = load(**CLAUDE, ANTHROPIC_BASE_URL=url)
    assert loaded.provider.base_url == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[worker]\nqueues = 3", "worker: Object contains unknown field `queues`"),
        ("[worker]\nlease = 0.5", "worker.lease: Expected `float` >= 1"),
        ('[provider]\nmodel = ""', "provider.model: Expected `str` of length >= 1"),
        ("[workers]", "workers: no such table"),
        ("worker", "not valid TOML"),
    ],
)
def test_mistake_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "legato.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load("--config", str(path), **ENOUGH)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        load("--config", str(tmp_path / "none.toml"), **ENOUGH)


def test_secrets_do_not_show_in_the_settings_text() -> None:
    loaded = load(**ENOUGH, ANTHROPIC_API_KEY="geheim", DATABASE_URL="postgresql://a:geheim@h/x")
    assert "geheim" not in repr(loaded)
