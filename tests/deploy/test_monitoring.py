"""The dashboards and alerts ask for what there is, and every alert has a section that says what to do.

`test_promtool.py` has what takes promtool.
"""

from __future__ import annotations

import functools
import json
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from legato.broadcaster import config as broadcaster_config
from legato.broadcaster.observability import metrics as of_broadcaster
from legato.worker.observability import metrics as of_worker
from tests.test_links import anchors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PROMETHEUS = DEPLOY / "prometheus"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
STREAM, COMMAND, ALERT = {"stream", "db"}, {"cmd"}, {"alertname", "alertstate"}

OTHERS: dict[str, set[str]] = {
    "up": set(),
    "ALERTS": ALERT,
    "redis_up": set(),
    "redis_aof_last_write_status": set(),
    "redis_blocked_clients": set(),
    "redis_client_output_buffer_limit_disconnections_total": set(),
    "redis_commands_duration_seconds_total": COMMAND,
    "redis_commands_processed_total": set(),
    "redis_commands_total": COMMAND,
    "redis_connected_clients": set(),
    "redis_connected_slaves": set(),
    "redis_cpu_sys_main_thread_seconds_total": set(),
    "redis_cpu_user_main_thread_seconds_total": set(),
    "redis_evicted_keys_total": set(),
    "redis_expired_keys_total": set(),
    "redis_memory_max_bytes": set(),
    "redis_memory_used_bytes": set(),
    "redis_memory_used_rss_bytes": set(),
    "redis_net_input_bytes_total": set(),
    "redis_net_output_bytes_total": set(),
    "redis_rdb_last_bgsave_status": set(),
    "redis_rejected_connections_total": set(),
    "redis_stream_entries_added_total": STREAM,
    "redis_stream_group_lag": STREAM | {"group"},
    "redis_stream_group_messages_pending": STREAM | {"group"},
    "redis_stream_length": STREAM,
}
"""What Prometheus itself and redis_exporter 1.88 have, with their labels."""

ALWAYS = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""


def known() -> dict[str, set[str]]:
    """The name of every sample -> its labels."""
    found = dict(OTHERS)
    for name, kind, _, labels, _ in (*of_broadcaster._FIGURES, *of_worker._COUNTS):
        found[f"{name}_total" if kind is of_worker.CounterMetricFamily else name] = set(labels)
    found |= {row[0]: {"queue"} for row in of_worker._ROOMS}
    found[f"{of_worker._COST}_total"] = {"model"}
    for name in (of_broadcaster._LOOP_DELAY, *(row[0] for row in of_worker._HISTOGRAMS)):
        found |= {f"{name}_bucket": {"le"}, f"{name}_sum": set(), f"{name}_count": set()}
    return found


KNOWN = known()
NAME = re.compile(r"\b(?:legato_\w+|redis_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")


def metrics(expr: str) -> set[str]:
    """The names of samples in an expression of PromQL."""
    return {found[0].partition("{")[0] for found in NAME.finditer(_plain(expr))}


def _plain(expr: str) -> str:
    """An expression without the texts in it."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)


def wrong(expr: str) -> list[str]:
    """What an expression asks for in vain: samples, labels, and bounds that Prometheus 3 writes otherwise."""
    found = [f"no metric {name}" for name in sorted(metrics(expr)) if name not in KNOWN]
    if found:
        return found
    for selector in NAME.finditer(_plain(expr)):
        labels = set(re.findall(r"(\w+)\s*[=!]", selector[1] or ""))
        name = selector[0].partition("{")[0]
        found += [f"{name} has no {label}" for label in sorted(labels - KNOWN[name] - ALWAYS)]
    kept = {word for group in re.findall(r"\b(?:by|on) \(([^)]+)\)", expr) for word in group.split(", ")}
    made = re.findall(r'label_replace\(.*?, "(\w+)", ', expr)
    all_labels = set().union(ALWAYS, made, *(KNOWN[name] for name in metrics(expr)))
    found += [f"nothing has {label}" for label in sorted(kept - all_labels)]
    # Prometheus 3 calls the bound 1 of a bucket 1.0.
    found += ["a whole bound of a bucket"] * bool(re.search(r'\ble=~?"\d+"', expr))
    return found


@functools.cache
def dashboard(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def panels(path: Path) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard(path)["panels"] if panel["type"] != "row")


def expressions(path: Path) -> Iterator[str]:
    """Every query of a dashboard."""
    for panel in panels(path):
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard(path)["templating"]["list"]:
        if variable["type"] == "query":
            yield from re.findall(r"label_values\((\w+), \w+\)", variable["definition"])
    yield from (each["expr"] for each in dashboard(path)["annotations"]["list"])


def rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


RULES = rules()
TESTS = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
by_name = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


@by_name
def test_dashboards_ask_for_what_there_is(path: Path) -> None:
    found = list(expressions(path))
    assert len(found) > 20
    assert {expr: wrong(expr) for expr in found if wrong(expr)} == {}


@pytest.mark.parametrize("name", RULES)
def test_alerts_ask_for_what_there_is(name: str) -> None:
    assert metrics(RULES[name]["expr"])
    assert wrong(RULES[name]["expr"]) == []


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("sum(rate(legato_messages[5m]))", ["no metric legato_messages"]),
        ('redis_memory{x="legato_messages"}', ["no metric redis_memory"]),
        ('sum by (code) (legato_http_requests_total{code="1"})', ["legato_http_requests_total has no code"]),
        ("sum by (app) (legato_channels)", ["nothing has app"]),
        ('legato_loop_delay_seconds_bucket{le="1"}', ["a whole bound of a bucket"]),
        ('sum by (app, instance) (legato_connections{app="{x}", job=~".+"})', []),
    ],
)
def test_what_there_is_not_would_be_seen(expr: str, said: list[str]) -> None:
    assert set(said) <= set(wrong(expr))
    assert bool(said) == bool(wrong(expr))


def test_there_is_one_dashboard_for_each_part() -> None:
    assert [path.stem for path in DASHBOARDS] == ["broadcaster", "redis", "worker"]
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)
    for path in DASHBOARDS:
        variables = [(each["name"], each["type"]) for each in dashboard(path)["templating"]["list"]]
        assert variables[:2] == [("datasource", "datasource"), ("instance", "query")]


@by_name
def test_every_panel_says_what_it_shows_and_asks_the_source_that_is_chosen(path: Path) -> None:
    for panel in panels(path):
        title = panel["title"]
        assert title, panel["id"]
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["datasource"] == DATASOURCE, title
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE, title
            assert target["legendFormat"], title
            alone = metrics(target["expr"]) == {"ALERTS"}
            assert alone or 'instance=~"$instance"' in target["expr"], title
    for each in (*dashboard(path)["templating"]["list"][1:], *dashboard(path)["annotations"]["list"]):
        assert each["datasource"] == DATASOURCE


@by_name
def test_panels_have_room(path: Path) -> None:
    every = dashboard(path)["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    places = [panel["gridPos"] for panel in every]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


@by_name
def test_lines_are_where_the_alerts_are(path: Path) -> None:
    for panel in panels(path):
        for name in re.findall(r"threshold of (\w+)", panel["description"]):
            line = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
            assert re.search(rf"> {re.escape(f'{line:g}')}\s*$", RULES[name]["expr"]), name


def test_every_alert_says_what_it_means_and_where_help_is() -> None:
    found = anchors((ROOT / "docs" / "monitoring.md").read_text())
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor) == ("docs/monitoring.md", name.lower())
        assert anchor in found, f"docs/monitoring.md has no section on {name}"


def test_every_section_of_the_runbook_is_about_an_alert() -> None:
    """And says how urgent it is, and what to do."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    sections = re.findall(r"^### (Legato\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == list(RULES)
    for name, body in sections:
        assert body.startswith(f"\n*{RULES[name]['labels']['severity']}.* "), name
        assert re.search(r"^1\. ", body, re.MULTILINE), name


@pytest.mark.parametrize("name", RULES)
def test_every_alert_is_seen_to_fire_and_not_to_fire(name: str) -> None:
    """The first tests of `alerts.test.yml` are quiet, with all that the alert looks at."""
    fires = re.compile(rf'alertname="{name}"')
    expected = [
        {sample["labels"] for sample in check["exp_samples"] if fires.search(sample["labels"])}
        for test in TESTS
        for check in test["promql_expr_test"]
        if check["expr"] == 'count by (alertname) (ALERTS{alertstate="firing"})'
    ]
    assert any(expected)
    quiet = TESTS[0]
    assert all(check["exp_samples"] == [] for check in quiet["promql_expr_test"])
    given = set().union(*(metrics(series["series"]) for series in quiet["input_series"]))
    assert metrics(RULES[name]["expr"]) <= given


def test_what_the_texts_say_of_settings_is_so() -> None:
    most = broadcaster_config.Chat().max_queued
    rule = RULES["LegatoQueueFilling"]
    assert f"chat.max_queued ({most})" in rule["annotations"]["description"]
    assert rule["expr"].endswith(f"> {most // 2}")
    assert f"chat.max_queued ({most})" in (DEPLOY / "grafana" / "dashboards" / "redis.json").read_text()


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    mounts = dict(line.split(":")[:2] for line in services["grafana"]["volumes"])
    folder = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert re.fullmatch(r"http://(\w+):9090", source["url"])[1] in services  # type: ignore[index]
    [provider] = yaml.safe_load((folder / "dashboards" / "legato.yaml").read_text())["providers"]
    assert mounts["../grafana/dashboards"] == provider["options"]["path"]
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"
