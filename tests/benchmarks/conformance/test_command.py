"""`legato conformance`, as a user calls it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from legato.benchmarks.conformance.checks import show
from legato.benchmarks.conformance.outcome import Result
from legato.benchmarks.conformance.report import FORMATS
from legato.deploy import cli
from tests.benchmarks.conformance.broken import running
from tests.benchmarks.conformance.support import CASES, MAIN, OTHERS
from tests.test_imports import imports

ROOT = Path(__file__).parents[3]
CREDENTIALS = ["--app-id", MAIN.id, "--key", MAIN.key, "--secret", MAIN.secret]


async def legato(*argv: str, cwd: Path | None = None, **environ: str) -> tuple[int, str, str]:
    """Status, standard output, standard error."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COVERAGE_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "legato.deploy", "conformance", *argv),
        env=kept | environ,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_run_that_passes():
    async with running([MAIN]) as server:
        argv = ["--url", server.url, "--api", server.api, *CREDENTIALS, "--section", "1", "--section", "4.6"]
        status, out, err = await legato(*argv)
    assert (status, err) == (0, "")
    assert "ok   1.5   an unknown key is refused with 4001" in out
    assert "ok   4.6   unsubscribe is not answered" in out
    assert "n/a  1.5   a disabled application is refused with 4003\n           needs --app disabled" in out
    sections = re.findall(r"^(?:ok|n/a|FAIL) +([0-9.]+) ", out, re.MULTILINE)
    assert sorted(set(sections)) == ["1.1", "1.2", "1.3", "1.4", "1.5", "4.6"]
    assert re.search(r"^\d+ passed, 0 failed, \d+ not applicable$", out, re.MULTILINE)


async def test_a_run_that_fails():
    async with running([MAIN], ["closes without an error"]) as server:
        argv = ["--url", server.url, "--api", server.api, *CREDENTIALS, "--section", "1.5", "--timeout", "1"]
        status, out, err = await legato(*argv)
    assert (status, err) == (1, "")
    assert re.search(r"FAIL 1\.5 +an unknown key.*\n +expected pusher:error, got a close with 4001", out)


async def test_further_applications_webhooks_and_credentials_from_the_environment(tmp_path):
    """Everything the options can give, and a report in a file."""
    others = [f"--app={role}={app.id}:{app.key}:{app.secret}" for role, app in OTHERS.items()]
    environ = {"PUSHER_APP_ID": MAIN.id, "PUSHER_APP_KEY": MAIN.key, "PUSHER_APP_SECRET": MAIN.secret}
    report = tmp_path / "report.json"
    async with running([MAIN, *OTHERS.values()]) as server:
        argv = ["--url", f"{server.url}/", "--api", f"{server.api}/", *others, "--section", "1"]
        argv += ["--refused-origin", "http://refused.test", "--webhook-port", "0", "--slow"]
        status, out, err = await legato(*argv, "--format", "json", "--output", str(report), **environ)
    body = json.loads(report.read_text())
    assert (status, err) == (0, "")
    assert out == f"{body['passed']} passed, 0 failed, 0 not applicable\n"
    assert body["failed"] == body["not_applicable"] == 0
    assert body["passed"] == len(body["cases"]) > 40
    assert MAIN.secret not in report.read_text()


async def test_the_list_needs_no_server():
    status, out, err = await legato("--list")
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == len(CASES)
    status, out, _ = await legato("--list", "--section", "10.3")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} == {"10.3"}


async def test_it_runs_where_another_package_is_called_tests(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("raise RuntimeError('not this one')")
    status, out, err = await legato("--list", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (status, err) == (0, "")
    assert out


NOWHERE = ["--url", "ws://127.0.0.1:1", *CREDENTIALS]
MISTAKES = [
    ([], 2, "--url is missing"),
    (["--url", "http://127.0.0.1:1"], 2, "--url http://127.0.0.1:1: expected ws://HOST[:PORT][/PATH]"),
    (["--url", "ws://127.0.0.1:99999"], 2, "--url ws://127.0.0.1:99999: expected"),
    (["--url", "ws://"], 2, "--url ws://: expected"),
    (["--url", "ws://a?b=c"], 2, "expected"),
    ([*NOWHERE, "--api", "ws://x"], 2, "--api ws://x: expected http://"),
    (
        ["--url", "ws://127.0.0.1:1", "--app-id", "1"],
        2,
        "--key (or PUSHER_APP_KEY in the environment) is missing",
    ),
    (NOWHERE, 1, "ws://127.0.0.1:1 cannot be reached: "),
    ([*NOWHERE, "--timeout", "0"], 2, "--timeout 0: expected seconds, more than 0"),
    ([*NOWHERE, "--timeout", "x"], 2, "invalid float value"),
    ([*NOWHERE, "--section", "99"], 2, "--section 99: no such section; there are 1.1, 1.2"),
    (
        [*NOWHERE, "--app", "king=1:a:b"],
        2,
        "--app king=…: expected ROLE=ID:KEY:SECRET with a ROLE of disabled",
    ),
    ([*NOWHERE, "--app", "full=1:a"], 2, "--app full=…: expected ROLE=ID:KEY:SECRET"),
    ([*NOWHERE, "--format", "xml"], 2, "invalid choice: 'xml'"),
]


@pytest.mark.parametrize(("argv", "status", "line"), MISTAKES)
def test_a_mistake_is_one_clear_line(argv, status, line, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("PUSHER_")]:
        monkeypatch.delenv(name)
    try:
        seen = cli.main(["conformance", *argv])
    except SystemExit as refused:
        seen = refused.code
    err = capsys.readouterr().err
    assert seen == status
    assert line in err.splitlines()[-1]
    assert MAIN.secret not in err


async def test_a_port_that_is_taken_and_a_file_that_cannot_be_written(tmp_path):
    async with running([MAIN]) as server:
        argv = ["--url", server.url, "--api", server.api, *CREDENTIALS, "--section", "1.3"]
        taken = server.api.rpartition(":")[2]
        status, _, err = await legato(*argv, "--webhook-port", taken)
        assert (status, f"127.0.0.1:{taken} cannot be listened on" in err) == (1, True)
        status, _, err = await legato(*argv, "--output", str(tmp_path / "no" / "file"))
        assert (status, "cannot be written" in err, "Traceback" in err) == (1, True, False)


RESULTS = [
    Result("1.1", "a | b", "pass", "as specified", 0.1),
    Result("10.3", "x", "fail", "got <b>`1`|2\\3", 0.2),
    Result("12", "y", "not applicable", "not there", 0.3),
]


def test_a_report_as_text():
    text = FORMATS["text"](RESULTS)
    assert text.splitlines() == [
        "ok   1.1   a | b",
        "FAIL 10.3  x",
        "           got <b>`1`|2\\3",
        "n/a  12    y",
        "           not there",
        "",
        "1 passed, 1 failed, 1 not applicable",
    ]


def test_a_report_as_json():
    body = json.loads(FORMATS["json"](RESULTS))
    assert (body["passed"], body["failed"], body["not_applicable"]) == (1, 1, 1)
    assert body["cases"][1] == {
        "section": "10.3",
        "name": "x",
        "verdict": "fail",
        "reason": "got <b>`1`|2\\3",
        "seconds": 0.2,
    }


def test_a_report_as_markdown_is_a_table_whatever_was_seen():
    rows = FORMATS["markdown"](RESULTS).splitlines()
    assert rows[2] == r"| 1.1 | a \| b | pass | as specified |"
    assert rows[3] == r"| 10.3 | x | fail | got &lt;b>\`1\`\|2\\3 |"


def test_what_was_seen_is_one_line_without_control_characters():
    assert show("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
    assert len(show("x" * 10_000)) < 300


def test_the_suite_knows_no_server_from_within():
    """It may import what is installed, and of the project only the words of the wire and itself."""
    files = sorted((ROOT / "benchmarks" / "conformance").rglob("*.py"))
    assert len(files) > 10
    ours = {"legato", "legato.protocol", "legato.benchmarks", "legato.benchmarks.conformance"}
    for path in files:
        for name in imports(path) - ours:
            within = name.startswith(("legato.protocol.", "legato.benchmarks.conformance."))
            assert within or name.partition(".")[0] != "legato", f"{path} imports {name}"


def test_names_of_cases_are_unique():
    from legato.benchmarks.conformance.cases import every  # noqa: PLC0415

    assert len(every()) == len(CASES)
