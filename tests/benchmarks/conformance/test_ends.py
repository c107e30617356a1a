"""A suite that does not come to its end: the server dies, or somebody has enough."""

from __future__ import annotations

import asyncio
import json

import pytest

from legato.benchmarks.conformance import command
from legato.benchmarks.conformance.checks import Failure, NotApplicable
from legato.benchmarks.conformance.outcome import Case, Result
from legato.benchmarks.conformance.runner import ServerGoneError, SuiteRunner
from legato.benchmarks.conformance.target import Application, Target
from legato.deploy import cli

OPTIONS = ["--url", "ws://127.0.0.1:1", "--app-id", "1", "--key", "k", "--secret", "s"]


class Listener:
    """A port that accepts connections until it dies."""

    async def __aenter__(self):
        self.server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    def suite(self) -> SuiteRunner:
        url = f"127.0.0.1:{self.port}"
        return SuiteRunner(Target(f"ws://{url}", f"http://{url}", Application("1", "k", "s")))


def suite_of(listener: Listener, *, dies: bool) -> list[Case]:
    async def passes(_):
        return None

    async def is_not_for_it(_):
        raise NotApplicable("it is not")

    async def fails(_):
        if dies:
            listener.server.close()
        raise Failure("expected a message, got a close with 1006")

    runs = [passes, is_not_for_it, *[fails] * 40]
    return [Case("1", f"case {number}", run) for number, run in enumerate(runs)]


async def test_a_server_that_dies_ends_the_suite():
    """The case that notices it is no failure of the server, nor are those after it."""
    async with Listener() as listener:
        done = []
        with pytest.raises(
            ServerGoneError, match=rf"^ws://127.0.0.1:{listener.port} is gone: .*refused|failed"
        ):
            await listener.suite().run(suite_of(listener, dies=True), done.append)
        assert [result.verdict for result in done] == ["pass", "not applicable"]


async def test_failures_of_a_server_that_lives_are_counted():
    async with Listener() as listener:
        results = await listener.suite().run(suite_of(listener, dies=False))
        assert [result.verdict for result in results].count("fail") == 40


GONE = "ws://x is gone: refused"


@pytest.mark.parametrize(("end", "status"), [(KeyboardInterrupt(), 130), (ServerGoneError(GONE), 1)])
@pytest.mark.parametrize("form", ["text", "json", "markdown"])
def test_what_was_done_is_reported(end, status, form, tmp_path, capsys, monkeypatch):
    async def half(_self, cases, report):
        for case in (cases[1], cases[0]):
            report(Result(case.section, case.name, "pass", "as specified", 0.1))
        raise end

    async def there(_):
        return ""

    monkeypatch.setattr(SuiteRunner, "run", half)
    monkeypatch.setattr(command, "unreachable", there)
    file = tmp_path / "report"
    assert cli.main(["conformance", *OPTIONS, "--format", form, "--output", str(file)]) == status
    told, text = capsys.readouterr(), file.read_text()
    count = len(command.select([]))
    note = f"{GONE if status == 1 else 'interrupted'}; 2 of {count} cases were run"
    line = f"NOT complete: {note}: 2 passed, 0 failed, 0 not applicable\n"
    assert told.out == line
    assert told.err == (f"legato conformance: {note}\n" if status == 1 else "")
    if form == "json":
        body = json.loads(text)
        assert body["incomplete"] == note
        assert [case["name"] for case in body["cases"]] == [case.name for case in command.select([])[:2]]
    else:
        assert text.endswith(line)
