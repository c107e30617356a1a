"""Files for containers, Supervisor and proxies fit the programs. They are read: no engine runs here."""

from __future__ import annotations

import configparser
import functools
import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from legato.broadcaster import config as broadcaster_config
from legato.broadcaster.foreign import names
from legato.protocol import wire
from legato.protocol.apps import App
from legato.protocol.settings import OTHER_NAMES
from legato.worker import config as worker_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


class Step(NamedTuple):
    word: str
    rest: str


class Stage(NamedTuple):
    image: str
    name: str
    steps: list[Step]

    def all(self, word: str) -> list[str]:
        return [step.rest for step in self.steps if step.word == word]


def parse(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage with their defaults, and the stages."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], rest.split(" AS ")[0])
            stages.append(Stage(image.split()[-1], rest.partition(" AS ")[2], []))
        elif word == "ARG" and not stages:
            arguments.update([rest.split("=", 1)])
        elif word:
            stages[-1].steps.append(Step(word, rest.strip()))
    return arguments, stages


ARGUMENTS, STAGES = parse((DEPLOY / "Dockerfile").read_text())
LAST = STAGES[-1]


def ignored(path: str) -> bool:
    """What .dockerignore says of a path: the last pattern that matches it, or a folder above it, decides."""
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        if line and not line.startswith("#") and any(_matches(one, pattern) for one in above):
            found = not line.startswith("!")
    return found


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return fnmatch(path, pattern) and path.count("/") == pattern.count("/")


def test_every_copied_file_is_there_and_not_ignored() -> None:
    copied = [
        source
        for stage in STAGES
        for line in stage.all("COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    ]
    assert {"pyproject.toml", "client-js/", "deploy/"} <= set(copied)
    assert [source for source in copied if not (ROOT / source).exists() or ignored(source.rstrip("/"))] == []


def test_what_a_stage_takes_from_another_is_named() -> None:
    names = {stage.name for stage in STAGES}
    taken = {
        line.split()[0].removeprefix("--from=")
        for stage in STAGES
        for line in stage.all("COPY")
        if "--from=" in line
    }
    assert taken == names - {""}, "a stage that nobody takes from only costs time"


def test_neither_secrets_nor_what_this_machine_has_built_is_sent_to_the_builder() -> None:
    for path in (".git/config", ".venv/bin/python", ".legato/legato.db", "deploy/compose/.env", ".env"):
        assert ignored(path), path
    for path in ("client-js/node_modules/vite/index.js", "client-js/dist/page/index.html", "worker/.env"):
        assert ignored(path), path
    for path in ("worker/cli.py", "deploy/systemd/legato-worker.service", "client-js/src/index.ts"):
        assert not ignored(path), path
    for folder in ("benchmarks", "broadcaster", "deploy", "protocol", "worker"):
        paths = [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")]
        assert [path for path in paths if ignored(path)] == []


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name or "last")
def test_base_images_are_pinned_to_a_minor_version(stage: Stage) -> None:
    assert re.fullmatch(r"(python|node):\d+\.\d+-slim-[a-z]+|node:\d+\.\d+-[a-z]+-slim", stage.image)


def test_python_is_new_enough() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = tuple(int(part) for part in required.removeprefix(">=").split("."))
    assert tuple(int(part) for part in ARGUMENTS["PYTHON_VERSION"].split(".")) >= least
    engines = (ROOT / "client-js" / "package.json").read_text()
    [node] = re.findall(r'"node": ">=(\d+)"', engines)
    assert int(ARGUMENTS["NODE_VERSION"].split(".")[0]) >= int(node)


def test_the_last_stage_is_not_root_and_has_no_compiler() -> None:
    [user] = LAST.all("USER")
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user), "a number: Kubernetes cannot tell who a name is"
    text = " ".join(step.rest for step in LAST.steps)
    assert not re.search(r"\b(apt-get|apk|gcc|npm|pip|curl|wget)\b", text)
    assert LAST.all("VOLUME") == ['["/data"]']


def test_signals_reach_legato_and_health_needs_no_shell() -> None:
    assert LAST.all("ENTRYPOINT") == ['["legato"]']
    assert LAST.all("CMD") == ['["broadcaster"]']
    [health] = LAST.all("HEALTHCHECK")
    program, option, script = json.loads(health.partition(" CMD ")[2])
    assert (program, option) == ("python", "-c")
    compile(script, "HEALTHCHECK", "exec")


def test_nothing_depends_on_the_processor() -> None:
    text = (DEPLOY / "Dockerfile").read_text().lower().replace("linux/amd64,linux/arm64", "")
    assert not re.search(r"amd64|x86_64|arm64|aarch64", text)


COMPOSE = DEPLOY / "compose"
FILES = ("compose.yaml", "three-nodes.yaml")
OUTSIDE = {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "LISTEN", "IMAGE", "VALKEY_MEMORY"} | {
    *("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "GF_ANALYTICS_CHECK_FOR_UPDATES"),
    *("GF_ANALYTICS_REPORTING_ENABLED", "GF_SECURITY_ADMIN_PASSWORD", "GF_USERS_DEFAULT_THEME"),
    *("GRAFANA_LISTEN", "GRAFANA_PASSWORD", "REDIS_ADDR", "REDIS_EXPORTER_CHECK_SINGLE_STREAMS"),
    "REDIS_EXPORTER_STREAMS_EXCLUDE_CONSUMER_METRICS",
}
"""Variables of the files and of other images."""


class Loader(yaml.SafeLoader):
    """YAML with the tag of Compose that empties a list of the file before."""


Loader.add_constructor("!reset", lambda _loader, _node: [])


@functools.cache
def load(name: str) -> dict[str, Any]:
    found = yaml.load((COMPOSE / name).read_text(), Loader)
    assert isinstance(found, dict)
    return found


def services(name: str) -> dict[str, dict[str, Any]]:
    """The services of a file; of those that extend one, with what they get from it."""
    found, first = load(name)["services"], load("compose.yaml")["services"]
    return {
        key: {**first[base], **each}
        if (base := each.get("extends", {}).get("service", key)) in first
        else each
        for key, each in found.items()
    }


def setting_names() -> set[str]:
    """Every environment variable that one of the programs reads."""
    found = {*broadcaster_config.ALIASES, *worker_config.ALIASES, *OTHER_NAMES}
    found |= {name for name, rule in names.RULES.items() if isinstance(rule, names.Honoured)}
    for settings in (broadcaster_config.Settings, worker_config.Settings):
        for table in msgspec.structs.fields(settings):
            if isinstance(table.default, msgspec.Struct):
                found |= {
                    f"LEGATO_{table.name}_{key.name}".upper() for key in msgspec.structs.fields(table.default)
                }
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting(name: str) -> None:
    text = (COMPOSE / name).read_text()
    named = {key for each in services(name).values() for key in each.get("environment", {})}
    named |= set(re.findall(r"\$\{(\w+)", text))
    assert named - setting_names() == named & OUTSIDE
    assert {key for key in ARGUMENTS_OF_IMAGE if key.startswith("LEGATO_")} <= setting_names()


ARGUMENTS_OF_IMAGE = set(re.findall(r"\b([A-Z_]{4,})=", " ".join(LAST.all("ENV"))))


def test_the_example_of_an_environment_names_what_the_files_ask_for_and_no_secret() -> None:
    given = dict(re.findall(r"^(\w+)=(.*)$", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    text = "".join((COMPOSE / name).read_text() for name in FILES)
    assert set(given) <= set(re.findall(r"\$\{(\w+)", text))
    required = set(re.findall(r"\$\{(\w+):\?", text))
    secrets = {key for key in setting_names() & set(given) if key.endswith(("SECRET", "PASSWORD", "_KEY"))}
    assert secrets - {"ANTHROPIC_API_KEY"} <= required, "without it, nothing starts"
    assert {key for key in required | secrets if given[key]} == set()


@pytest.mark.parametrize("name", FILES)
def test_every_image_is_pinned(name: str) -> None:
    for key, each in services(name).items():
        if "image" in each:
            tag = each["image"].removeprefix("${IMAGE:-").removesuffix("}").rpartition(":")[2]
            assert re.match(r"v?\d+\.\d+", tag), key


def test_only_the_ways_to_the_broadcaster_and_to_grafana_are_published() -> None:
    published = [key for key, each in services("compose.yaml").items() if each.get("ports")]
    assert published == ["broadcaster", "grafana"]
    assert [key for key, each in services("three-nodes.yaml").items() if each.get("ports")] == ["proxy"]
    assert load("compose.yaml")["networks"]["data"] == {"internal": True}
    for key in ("valkey", "postgres"):
        assert services("compose.yaml")[key]["networks"] == ["data"]


@pytest.mark.parametrize("name", FILES)
def test_programs_have_the_time_that_they_need_to_leave(name: str) -> None:
    for key, each in services(name).items():
        given = int(each.get("stop_grace_period", "10s").removesuffix("s"))
        set_ = {**services("compose.yaml").get(key, {}).get("environment", {}), **each.get("environment", {})}
        needed = sum(int(set_.get(f"LEGATO_SERVER_{which}_SECONDS", 0)) for which in ("NOTICE", "DRAIN"))
        needed += int(set_.get("LEGATO_WORKER_DRAIN_SECONDS", 0))
        assert given >= needed + (15 if needed else 0), key


def test_nothing_starts_before_what_it_needs() -> None:
    found = services("compose.yaml")
    for each in found.values():
        for needed, how in each.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in found[needed]["healthcheck"] or needed == "broadcaster"
            else:
                assert (needed, how["condition"]) == ("migrate", "service_completed_successfully")
    assert found["migrate"]["restart"] == "no"
    assert "noeviction" in found["valkey"]["command"]


@pytest.mark.parametrize(("name", "scraped"), [("compose.yaml", 5), ("three-nodes.yaml", 7)])
def test_prometheus_asks_where_metrics_are(name: str, scraped: int) -> None:
    found = services("compose.yaml") | services(name)
    [file] = [line.split(":")[0] for line in found["prometheus"]["volumes"] if line.startswith("./")]
    *jobs, redis = yaml.safe_load((COMPOSE / file).read_text())["scrape_configs"]
    assert redis["static_configs"] == [{"targets": ["redis-exporter:9121"]}]
    targets = [target for job in jobs for each in job["static_configs"] for target in each["targets"]]
    processes = int(services("compose.yaml")["worker"]["command"][-1])
    first = int(services("compose.yaml")["worker"]["environment"]["LEGATO_WORKER_METRICS_PORT"])
    port = services("compose.yaml")["broadcaster"]["environment"]["LEGATO_METRICS_PORT"]
    expected = [f"{key}:{port}" for key in found if key.startswith("broadcaster")]
    # While processes are replaced, there are up to twice as many.
    ports = range(first, first + 2 * processes)
    assert targets == [*expected, *(f"worker:{port}" for port in ports)]
    assert str(ports) in services("compose.yaml")["worker"]["healthcheck"]["test"][-1]
    assert len(targets) == scraped


def test_what_is_mounted_is_there() -> None:
    found = services("compose.yaml")
    for name in FILES:
        for key, each in services(name).items():
            for line in each.get("volumes", ()):
                if line.startswith("."):
                    assert (COMPOSE / line.split(":")[0]).exists(), (key, line)
                    assert line.endswith(":ro"), (key, line)
    assert "../prometheus/alerts.yml:/etc/prometheus/alerts.yml:ro" in found["prometheus"]["volumes"]


def test_the_exporter_looks_at_the_streams_of_the_queue() -> None:
    streams = services("compose.yaml")["redis-exporter"]["environment"]["REDIS_EXPORTER_CHECK_SINGLE_STREAMS"]
    queue = broadcaster_config.Chat().queue
    assert streams.split(",") == [wire.jobs_key(queue), wire.dead_key(queue)]
    assert streams in (DEPLOY / "prometheus" / "prometheus.yml").read_text()


def test_supervisor_gives_programs_the_time_that_they_need_and_no_second_signal() -> None:
    found = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    found.read(DEPLOY / "supervisord" / "legato.conf")
    drains = {"broadcaster": 5 + 15, "worker": int(worker_config.Worker().drain_seconds)}
    for section in found.sections():
        block = found[section]
        command = block["command"].split()
        assert command[0] == "/opt/legato/.venv/bin/legato"
        assert block.getint("stopwaitsecs") > drains.pop(command[1])
        assert (block["stopsignal"], block["stopasgroup"], block["killasgroup"]) == ("TERM", "false", "true")
        named = {pair.partition("=")[0] for pair in block.get("environment", "").split(",")}
        assert named - {""} <= setting_names()
    assert not drains, "both programs are there"


def test_every_sample_of_a_proxy_waits_longer_than_a_silent_client_is_waited_for() -> None:
    silence = (
        App(id="1", key="k", secret="s").activity_timeout + App(id="1", key="k", secret="s").pong_timeout
    )
    proxies = DEPLOY / "proxy"
    waits = {
        "nginx.conf": re.findall(
            r"proxy_(?:read|send)_timeout (\d+)s;", (proxies / "nginx.conf").read_text()
        ),
        "haproxy.cfg": re.findall(
            r"timeout (?:client|server|tunnel) (\d+)s", (proxies / "haproxy.cfg").read_text()
        ),
    }
    assert {name: len(found) for name, found in waits.items()} == {"nginx.conf": 2, "haproxy.cfg": 3}
    assert min(int(seconds) for found in waits.values() for seconds in found) > silence
    http = yaml.safe_load((proxies / "traefik.yaml").read_text())["http"]
    assert http["services"]["legato"]["loadBalancer"]["responseForwarding"] == {"flushInterval": "-1s"}
    kept = int(http["serversTransports"]["legato"]["forwardingTimeouts"]["idleConnTimeout"].removesuffix("s"))
    assert kept < broadcaster_config.Server().keep_alive


def test_both_configurations_of_haproxy_find_the_same_node_for_one_fallback_connection() -> None:
    for place in ("proxy", "compose"):
        text = (DEPLOY / place / "haproxy.cfg").read_text()
        for line in ("use_backend fallback if { path_reg /app/", "balance hash path,regsub(/xhr.*,)\n"):
            assert line in text, place
