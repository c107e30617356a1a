"""The Helm chart: what Helm has made of it, and that the programs take it. `tests/chart.py` renders it."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from typing import Any, NamedTuple

import pytest
import yaml

from legato.broadcaster import config as broadcaster_config
from legato.deploy import cli, secret_files
from legato.protocol import wire
from legato.worker import config as worker_config
from tests import chart
from tests.deploy.test_container import LAST
from tests.deploy.test_monitoring import KNOWN, PROMETHEUS

CONFIGS = {"broadcaster": broadcaster_config, "worker": worker_config}
TEXTS = {
    "DATABASE_URL": "postgresql://legato:hidden@postgres/legato",
    "LEGATO_DATABASE_URL": "postgresql://legato:hidden@postgres/legato",
    "REDIS_URL": "redis://:hidden@redis:6379",
}
"""What files of secrets have; others have this."""
OTHER = "hidden-hidden-hidden-hidden-hidden-hidden"
EXTRA_SECONDS = 15
"""What a program needs after its drain: docs/cluster.md, docs/install.md."""


@functools.cache
def manifests(case: str) -> tuple[dict[str, Any], ...]:
    found = yaml.load_all(chart.rendered(case).read_text(), yaml.CSafeLoader)
    return tuple(each for each in found if each)


def of(case: str, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in manifests(case) if each["kind"] == kind}


class Pod(NamedTuple):
    part: str
    labels: dict[str, str]
    spec: dict[str, Any]
    container: dict[str, Any]

    @property
    def environ(self) -> dict[str, str]:
        return {each["name"]: each["value"] for each in self.container.get("env", ())}

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container.get("ports", ())}


def pods(case: str) -> list[Pod]:
    found = []
    for each in (*of(case, "Deployment").values(), *of(case, "Job").values()):
        template = each["spec"]["template"]
        [container] = template["spec"]["containers"]
        found.append(Pod(container["name"], template["metadata"]["labels"], template["spec"], container))
    return found


ALL = [pytest.param(case, pod, id=f"{case}-{pod.part}") for case in chart.NAMES for pod in pods(case)]
in_each_case = pytest.mark.parametrize("case", chart.NAMES)
of_each_pod = pytest.mark.parametrize(("case", "pod"), ALL)


@in_each_case
def test_what_is_read_here_was_rendered_from_this_chart(case: str) -> None:
    made = chart.rendered(case).read_text().startswith(chart.head(case))
    assert made, "the chart has changed: python -m tests.chart"


@of_each_pod
def test_programs_take_their_settings(case: str, pod: Pod, tmp_path: Any) -> None:
    """As the image does: with the files of its secrets, and with the file that --config names."""
    environ = {"LEGATO_SERVER_HOST": "0.0.0.0"} | pod.environ if pod.part == "broadcaster" else pod.environ
    for name in [name for name in environ if name.endswith(secret_files.ENDING)]:
        path = tmp_path / name
        path.write_text(TEXTS.get(name.removesuffix(secret_files.ENDING), OTHER))
        environ[name] = str(path)
    secret_files.apply(environ)
    arguments = list(pod.container["args"])
    if "--config" in arguments:
        [config] = of(case, "ConfigMap").values()
        (tmp_path / "legato.toml").write_text(config["data"]["legato.toml"])
        assert arguments[-1] == "/etc/legato/legato.toml"
        arguments[-1] = str(tmp_path / "legato.toml")
    options = cli.build_parser(cli.COMMANDS).parse_args(arguments)
    if pod.part == "migrate":
        assert {*environ} <= {"DATABASE_URL", "LEGATO_DATABASE_URL"}
        return
    loaded = CONFIGS[pod.part].load(options, environ)
    assert loaded.redis.url == TEXTS["REDIS_URL"]
    check = check_broadcaster if pod.part == "broadcaster" else check_worker
    check(pod, loaded)


def check_broadcaster(pod: Pod, loaded: broadcaster_config.Settings) -> None:
    server = loaded.server
    assert pod.ports == {"http": server.port, "metrics": loaded.metrics.port}
    assert (server.host, loaded.metrics.host) == ("0.0.0.0", "0.0.0.0")
    hook = pod.container.get("lifecycle", {}).get("preStop", {"exec": {"command": ["sleep", "0"]}})
    [program, seconds] = hook["exec"]["command"]
    assert program == "sleep"
    needed = int(seconds) + server.notice_seconds + server.drain_seconds + EXTRA_SECONDS
    assert pod.spec["terminationGracePeriodSeconds"] == needed
    paths = {name: pod.container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert paths == {"liveness": f"{server.path}/up", "readiness": f"{server.path}/up?ready"}


def check_worker(pod: Pod, loaded: worker_config.Settings) -> None:
    worker = loaded.worker
    assert pod.spec["terminationGracePeriodSeconds"] == worker.drain_seconds + EXTRA_SECONDS
    assert worker.metrics_host == "0.0.0.0"
    assert loaded.database.url == pod.environ.get("LEGATO_DATABASE_URL", TEXTS["DATABASE_URL"])
    ports = range(worker.metrics_port, worker.metrics_port + 2 * worker.processes)
    assert pod.ports == {f"metrics-{number}": port for number, port in enumerate(ports)}
    for name in ("startup", "liveness", "readiness"):
        assert str(ports) in pod.container[f"{name}Probe"]["exec"]["command"][-1]


@of_each_pod
def test_secrets_are_files_and_nothing_else(case: str, pod: Pod) -> None:
    files = {name for name in pod.environ if name.endswith(secret_files.ENDING)}
    mounted = {each["name"]: each["mountPath"] for each in pod.container["volumeMounts"]}
    items: dict[str, str] = {}
    for volume in pod.spec["volumes"]:
        kind = volume.get("projected") or volume.get("secret")
        for source in kind.get("sources", [{"secret": kind}]) if kind else ():
            items |= {item["path"]: item["key"] for item in source["secret"]["items"]}
            assert kind["defaultMode"] == 0o440
    assert {f"{name}{secret_files.ENDING}" for name in items} == files
    for name in files:
        assert pod.environ[name] == f"{mounted['secrets']}/{name.removesuffix(secret_files.ENDING)}"


@of_each_pod
def test_pods_are_confined(case: str, pod: Pod) -> None:
    security, own = pod.spec["securityContext"], pod.container["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == LAST.all("USER")[0]
    assert security["runAsNonRoot"] is True
    assert security["fsGroup"] == security["runAsGroup"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod.spec["automountServiceAccountToken"] is False
    assert {*pod.container["resources"]["requests"]} == {"cpu", "memory"}
    assert "memory" in pod.container["resources"]["limits"]
    mounts = {each["name"]: each for each in pod.container["volumeMounts"]}
    assert {*mounts} == {volume["name"] for volume in pod.spec["volumes"]}
    assert {"/tmp", LAST.all("WORKDIR")[0]} <= {each["mountPath"] for each in mounts.values()}


@in_each_case
def test_what_is_named_is_there(case: str) -> None:
    """Selectors select the pods of one part, and names of ports and Deployments are right."""
    deployments, every = of(case, "Deployment"), pods(case)

    def selected(labels: dict[str, str]) -> Pod:
        [found] = [pod for pod in every if labels.items() <= pod.labels.items()]
        return found

    for each in deployments.values():
        assert selected(each["spec"]["selector"]["matchLabels"]).part in CONFIGS
    for each in of(case, "Service").values():
        pod = selected(each["spec"]["selector"])
        assert all(port["targetPort"] in pod.ports for port in each["spec"]["ports"])
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for each in of(case, kind).values():
            selector = each["spec"].get("podSelector") or each["spec"]["selector"]
            assert each["metadata"]["name"].endswith(selected(selector["matchLabels"]).part)
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for each in of(case, kind).values():
            assert "replicas" not in deployments[each["spec"]["scaleTargetRef"]["name"]]["spec"]
    for name, each in deployments.items():
        scaled = [*of(case, "HorizontalPodAutoscaler"), *of(case, "ScaledObject")]
        assert ("replicas" in each["spec"]) == (name not in scaled)


@in_each_case
def test_prometheus_finds_all_ports_under_the_jobs_of_the_alerts(case: str) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    services, ports = of(case, "Service"), {pod.part: pod.ports for pod in pods(case)}
    for each in of(case, "ServiceMonitor").values():
        wanted = each["spec"]["selector"]["matchLabels"]
        [service] = [one for one in services.values() if wanted.items() <= one["metadata"]["labels"].items()]
        part = wanted["app.kubernetes.io/component"]
        named = {port["name"]: port["port"] for port in service["spec"]["ports"]}
        assert named == {name: port for name, port in ports[part].items() if name != "http"}
        assert [endpoint["port"] for endpoint in each["spec"]["endpoints"]] == [*named]
        for endpoint in each["spec"]["endpoints"]:
            assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": f"legato-{part}"}]
        assert f"legato-{part}" in jobs


@in_each_case
def test_only_who_may_reaches_the_pods(case: str) -> None:
    ports = {pod.part: pod.ports for pod in pods(case)}
    for each in of(case, "NetworkPolicy").values():
        part = each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        opened = {}
        for rule in each["spec"]["ingress"] or ():
            for port in rule["ports"]:
                numbers = range(port["port"], port["endPort"] + 1) if "endPort" in port else (port["port"],)
                opened |= {ports[part].get(number, number): bool(rule.get("from")) for number in numbers}
        public = opened.pop(ports[part]["http"]) if part == "broadcaster" else True
        assert public is (case == "everything") or part == "worker"
        assert opened == {port: True for name, port in ports[part].items() if name != "http"} or (
            case == "workers" and not opened
        ), "metrics: to those that are named, and to nobody if none is"
        assert (
            ("Egress" in each["spec"]["policyTypes"]) == ("egress" in each["spec"]) == (case == "everything")
        )


def test_workers_follow_the_stream_and_broadcasters_their_connections() -> None:
    triggers = {
        case: [trigger for each in of(case, "ScaledObject").values() for trigger in each["spec"]["triggers"]]
        for case in chart.NAMES
    }
    assert [case for case in chart.NAMES if triggers[case]] == ["everything", "workers"]
    [lag], [length] = triggers["everything"], triggers["workers"]
    queue = worker_config.Worker().queue
    assert length["metadata"] == {
        "address": "redis:6379",
        "databaseIndex": "0",
        "enableTLS": "false",
        "stream": wire.jobs_key(queue),
        "streamLength": "32",  # one process of 32 replies
    }
    assert lag["metadata"] | {"address": ""} == {
        "address": "",
        "databaseIndex": "1",
        "enableTLS": "true",
        "stream": f"shop:{wire.jobs_key(queue)}",
        "consumerGroup": wire.GROUP,
        "lagCount": "24",  # half of three processes of 16
        "activationLagCount": "0",
    }
    assert lag["authenticationRef"] == {"name": "legato-redis"}
    [scaler] = of("everything", "HorizontalPodAutoscaler").values()
    [metric] = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in KNOWN
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "1000000"}


def test_the_tables_are_upgraded_once_and_before_the_workers() -> None:
    for case in chart.NAMES:
        workers = [pod for pod in pods(case) if pod.part == "worker"]
        for pod in workers:
            by_itself = pod.environ["LEGATO_DATABASE_MIGRATE"] == "true"
            assert by_itself == (not of(case, "Job")) == (case == "workers")
        for job in of(case, "Job").values():
            assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert workers


VALUES = yaml.safe_load((chart.CHART / "values.yaml").read_text())
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())
KINDS = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    return resolved(SCHEMA["definitions"][reference]) if reference else schema


def differences(values: dict[str, Any], schema: dict[str, Any], where: str = "") -> list[str]:
    """Where default values and schema do not fit: keys on one side only, and values of another type."""
    properties = schema["properties"]
    found = [f"{where}{key}" for key in values.keys() ^ properties.keys() if key not in OPTIONAL]
    for key in values.keys() & properties.keys():
        rule, value = resolved(properties[key]), values[key]
        kinds = rule.get("type", [])
        allowed = [KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)]
        if value not in rule.get("enum", [value]) or (allowed and type(value) not in allowed):
            found.append(f"{where}{key} is {value!r}")
        elif isinstance(value, dict) and "properties" in rule:
            found += differences(value, rule, f"{where}{key}.")
    return found


OPTIONAL = {"global", "claims"}


def test_every_value_is_in_the_schema_and_has_its_type() -> None:
    assert differences(VALUES, SCHEMA) == []
    wrong = VALUES | {"migrate": {"enabled": "no"}, "more": 1}
    assert sorted(differences(wrong, SCHEMA)) == ["migrate.enabled is 'no'", "more"]


SHORT = {"monitor": ("serviceMonitor",), "policy": ("networkPolicy",)}
"""What templates call the values of one part; ``$values`` and ``$part`` are those of a program."""


def test_every_value_is_used_and_every_used_one_is_there() -> None:
    texts = [path.read_text() for path in (chart.CHART / "templates").iterdir()]
    used = {path for text in texts for path in re.findall(r"\.Values\.([\w.]+)", text)}
    used -= {*CONFIGS, *(part for parts in SHORT.values() for part in parts)}  # given a name, not used yet
    there = _paths(VALUES)
    assert {path for path in used if not _any_within(path, there)} == set()
    for text in texts:
        for name, after in re.findall(r"\$(monitor|policy|values|part)\.([\w.]+)", text):
            meant = {f"{part}.{after}" for part in SHORT.get(name, tuple(CONFIGS))}
            assert any(_any_within(path, there) for path in meant), after
            used |= meant
        used |= {f"{part}.{key}" for part in CONFIGS for key in re.findall(r"\)\.(\w+)", text)}
    assert {path for path in there if not any(f"{path}.".startswith(f"{each}.") for each in used)} == set()


def _any_within(path: str, there: set[str]) -> bool:
    """Whether one of the values is this, or in it, or has it in it."""
    return any(f"{each}.".startswith(f"{path}.") or f"{path}.".startswith(f"{each}.") for each in there)


def _paths(values: dict[str, Any], where: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found |= _paths(value, f"{where}{key}.") if isinstance(value, dict) and value else {f"{where}{key}"}
    return found


def test_the_schema_lets_through_the_secrets_that_a_file_can_set() -> None:
    pattern = SCHEMA["definitions"]["secrets"]["propertyNames"]["pattern"]
    for name in (*secret_files.OTHER_NAMES, "LEGATO_APP_SECRET", "LEGATO_AUTH_JWT_SECRET"):
        assert re.search(pattern, name), name
    assert not re.search(pattern, "POSTGRES_PASSWORD")


def test_the_chart_is_of_this_version() -> None:
    found = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    version = tomllib.loads((chart.ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found["version"] == found["appVersion"] == version
    for pod in pods("minimal"):
        assert pod.container["image"] == f"registry.example.com/legato:{version}"


def test_the_example_of_the_documents_is_rendered() -> None:
    text = (chart.ROOT / "docs" / "install.md").read_text()
    example = text.partition("\n## Helm\n")[2].partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(example) == yaml.safe_load(chart.values("minimal").read_text())
