"""Prometheus reads its files, the alerts do what their tests say, and the dashboards' queries are PromQL."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import yaml

from tests.deploy.test_monitoring import DASHBOARDS, DEPLOY, PROMETHEUS, expressions

if TYPE_CHECKING:
    from pathlib import Path


def promtool(*arguments: str | Path, place: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "promtool is missing: `make test` installs Debian's package prometheus, or says so"
    return subprocess.run(
        [program, *arguments], cwd=place, capture_output=True, text=True, check=False, timeout=60
    )


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configurations_and_the_queries_of_the_dashboards(tmp_path: Path) -> None:
    """The queries are given to it as rules. Grafana's variables are replaced."""
    for path in (PROMETHEUS / "prometheus.yml", *(DEPLOY / "compose").glob("prometheus*.yaml")):
        config = yaml.safe_load(path.read_text())
        assert config["rule_files"] == ["alerts.yml"], path
        shutil.copy(path, tmp_path)
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    queries = sorted({expr for path in DASHBOARDS for expr in expressions(path)})
    asked = [expr.replace("$__rate_interval", "1m").replace("$instance", ".*") for expr in queries]
    assert not any("$" in expr for expr in asked), "another variable"
    rules = [{"record": f"query:{count}", "expr": expr} for count, expr in enumerate(asked)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    files = sorted(path.name for path in tmp_path.glob("prometheus*"))
    assert len(files) == 3
    for command in (("config", *files), ("rules", "queries.yml")):
        done = promtool("check", *command, place=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
