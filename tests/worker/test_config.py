"""Settings from file, environment and flags; a mistake is one line that names its place and no secret."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from legato.protocol.settings import SettingsError
from legato.worker import config, options

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "worker.md"

ENOUGH = {"REDIS_URL": "redis://h", "LEGATO_PROVIDER_NAME": "scripted"}
OPEN = {
    "REDIS_URL": "redis://h",
    "LEGATO_PROVIDER_NAME": "openai_compatible",
    "LEGATO_PROVIDER_MODEL": "llama3.2",
    "LEGATO_PROVIDER_BASE_URL": "http://127.0.0.1:11434/v1",
}
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
        *(
            (
                {**ENOUGH, "LEGATO_PROVIDER_NAME": name},
                "provider.name: expected anthropic, openai_compatible, scripted or MODULE:NAME, got "
                + repr(name),
            )
            for name in (
                "oracle",
                "shop",
                ":x",
                "shop:",
                "shop:a.b",
                "shop:a b",
                "1:x",
                "a..b:x",
                "http://a:x\n",
            )
        ),
        ({**OPEN, "LEGATO_PROVIDER_BASE_URL": ""}, "provider.base_url: is not set"),
        (
            {**OPEN, "LEGATO_PROVIDER_BASE_URL": "geheim"},
            "provider.base_url: expected an http:// or https://",
        ),
        ({**OPEN, "LEGATO_PROVIDER_MODEL": ""}, "provider.model: is not set"),
        (
            {**OPEN, "LEGATO_PROVIDER_API_KEY": "geheim\n"},
            "provider.api_key: has a character that no key has",
        ),
        (
            {**OPEN, "LEGATO_PROVIDER_API_KEY": "k", "LEGATO_PROVIDER_BASE_URL": "http://a:geheim@h/v1"},
            "provider.headers: a header, api_key or password of base_url is given twice",
        ),
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
        ("[worker]\nqueues = 3", "worker.queues: no such setting; did you mean queue?"),
        ("[worker]\nlease = 0.5", "worker.lease: Expected `float` >= 1"),
        ('[provider]\nmodel = ""', "provider.model: Expected `str` of length >= 1"),
        ("[workers]", "workers: no such table"),
        ("worker", "not valid TOML"),
        ("[worker]\nmax_per_user = 3", "worker.max_per_user: has no effect without worker.fair"),
        ("[worker]\ntenant_weights = { a = 3 }", "worker.tenant_weights: has no effect without worker.fair"),
        ("[worker]\nuser_weights = { a = 3 }", "worker.user_weights: has no effect without worker.fair"),
        ("[worker]\nfair = true\nuser_weights = { a = 1001 }", "Expected `int` <= 1000"),
        ("[worker]\nfair = true\ntenant_weights = { a = 0 }", "Expected `int` >= 1"),
        ("[worker]\nfair = true\ntenant_limits = { 'a b' = 1 }", "matching regex"),
        ("[worker]\nfair = true\nmax_per_tenant = -1", "worker.max_per_tenant: Expected `int` >= 0"),
    ],
)
def test_mistake_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "legato.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load("--config", str(path), **ENOUGH)
    assert str(caught.value).startswith((f"{path}: ", "worker."))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('headers = { "a b" = "geheim" }', "'a b' is not a name of a header that can be set"),
        ('headers = { Host = "geheim" }', "'Host' is not a name of a header that can be set"),
        ('headers = { a = "geheim\\r\\nb: c" }', "a has a character that no header has, or no value"),
        ('headers = { a = "gehéim" }', "a has a character that no header has, or no value"),
        ('headers = { a = " " }', "a has a character that no header has, or no value"),
        ('headers = { Authorization = "geheim" }\napi_key = "geheim"', "is given twice"),
        ('headers = { a = "geheim", A = "geheim" }', "is given twice"),
        ("headers = { a = 1 }", "Expected `str`, got `int`"),
        ('headers = { a = "b" }\nname = "anthropic"\napi_key = "k"', "headers: anthropic has none"),
        ('options = { a = "b" }', "options: openai_compatible has none"),
    ],
)
def test_mistake_in_the_table_of_a_provider(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "legato.toml"
    path.write_text(f"[provider]\n{lines}")
    environ = OPEN if "name" not in lines else {"REDIS_URL": "redis://h"}
    with pytest.raises(SettingsError) as caught:
        load("--config", str(path), **environ)
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_server_needs_neither_key_nor_headers_and_may_have_both(tmp_path: Path) -> None:
    assert load(**OPEN).provider.api_key == ""
    path = tmp_path / "legato.toml"
    path.write_text('[provider]\nheaders = { "HTTP-Referer" = "https://a.example", "X-Title" = "Our chat" }')
    provider = load("--config", str(path), **OPEN, LEGATO_PROVIDER_API_KEY="sk-x").provider
    assert provider.headers == {"HTTP-Referer": "https://a.example", "X-Title": "Our chat"}
    assert "Our chat" not in repr(provider)


@pytest.mark.parametrize("name", ["openai_compatible", "shop.model:make"])
def test_the_key_of_anthropic_is_for_nobody_else(name: str) -> None:
    environ = {**OPEN, "LEGATO_PROVIDER_NAME": name}
    loaded = load(
        **environ, ANTHROPIC_API_KEY="geheim", ANTHROPIC_BASE_URL="http://claude", DATABASE_URL="mysql://a"
    )
    assert loaded.provider.api_key == ""
    assert loaded.provider.base_url == OPEN["LEGATO_PROVIDER_BASE_URL"]
    assert loaded.database.url == "mysql://a"


def documented() -> Iterator[dict[str, str]]:
    """The environments that docs/worker.md shows for other models, and its file."""
    section = PAGE.read_text().partition("\n## Other models\n")[2].partition("\n## ")[0]
    for block in re.findall(r"((?:^    .+\n)+)", section, re.MULTILINE):
        yield dict(re.findall(r"\b(LEGATO_[A-Z_]+)=(\S+)", block))
    (toml,) = re.findall(r"^```toml\n(.+?)^```", section, re.MULTILINE | re.DOTALL)
    yield {"toml": toml}


@pytest.mark.parametrize("settings", list(documented()))
def test_documented_servers(tmp_path: Path, settings: dict[str, str]) -> None:
    path = tmp_path / "legato.toml"
    path.write_text(settings.pop("toml", ""))
    loaded = load("--config", str(path), **settings, REDIS_URL="redis://h")
    assert loaded.provider.name == "openai_compatible"
    assert loaded.provider.base_url.endswith("/v1")


def test_options_are_for_ones_own_provider(tmp_path: Path) -> None:
    path = tmp_path / "legato.toml"
    path.write_text(
        '[provider]\nname = "shop.model:make"\n[provider.options]\nregion = "eu"\nlimits = [1, 2]\n'
    )
    assert load("--config", str(path), REDIS_URL="redis://h").provider.options == {
        "region": "eu",
        "limits": [1, 2],
    }


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        load("--config", str(tmp_path / "none.toml"), **ENOUGH)


def test_secrets_do_not_show_in_the_settings_text() -> None:
    loaded = load(**ENOUGH, ANTHROPIC_API_KEY="geheim", DATABASE_URL="postgresql://a:geheim@h/x")
    assert "geheim" not in repr(loaded)


def test_source_of_each_setting_is_told() -> None:
    sources: dict[str, str] = {}
    environ = {"REDIS_HOST": "x", "ANTHROPIC_API_KEY": "k", "LEGATO_WORKER_TRIES": "3"}
    config.load(argparse.Namespace(config=None, queue="q"), environ, sources)
    assert sources == {
        "redis.url": "REDIS_HOST",
        "provider.api_key": "ANTHROPIC_API_KEY",
        "worker.tries": "LEGATO_WORKER_TRIES",
        "worker.queue": "command line",
    }
    own = {"LEGATO_PROVIDER_NAME": "shop.models:build", "REDIS_URL": "redis://x"}
    config.load(argparse.Namespace(config=None), environ | own, sources)
    assert "provider.api_key" not in sources
    assert sources["redis.url"] == "REDIS_URL"
