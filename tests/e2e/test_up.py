"""`legato up` as a user lives with it: what it prints, what survives, what is left when it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.screen import alive
from tests.e2e.conftest import Legato, legato_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS = {"valkey": "valkey-server", "broadcaster": "deploy\0broadcaster", "worker": "deploy\0worker"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def legato(data: Path) -> Iterator[Legato]:
    with legato_up(data) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Legato, Path]]:
    """One for all that do not end it, and its data."""
    data = tmp_path_factory.mktemp("shared") / "data"
    with legato_up(data) as running:
        yield running, data
        assert running.stop() == 0
        assert "Traceback" not in running.output


def wait(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def parts(legato: Legato) -> dict[str, int]:
    """The pid of each child process."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            command = (process / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == legato.process.pid:
            found |= {name: int(process.name) for name, word in PARTS.items() if word in command}
    return found


def call(url: str, body: object = None, **headers: str) -> Any:
    """GET, or POST of JSON; the JSON of a 2xx answer."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


class SentMessage:
    """Answers its reply when it is called."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url = url
        self.headers = headers

    def __call__(self) -> Any:
        return call(self.url, **self.headers)


def send(legato: Legato, message: str) -> SentMessage:
    """Send a chat message."""
    token = call(f"{legato.url}/dev/token?sub=7")["token"]
    headers = {"Authorization": f"Bearer {token}"}
    body = {"message": message, "history": []}
    message_id = call(f"{legato.url}/api/chat/send", body, **headers)["message_id"]
    return SentMessage(f"{legato.url}/api/chat/{message_id}?after=-1", headers)


def test_when_the_banner_is_there_everything_works(shared: tuple[Legato, Path]) -> None:
    legato, data = shared
    lines = legato.output.splitlines()
    assert legato.url in lines
    assert "Replies come from a script: set ANTHROPIC_API_KEY for the real thing" in lines
    assert f"Data:    {data}" in lines
    modes = {path.name: path.lstat().st_mode & 0o077 for path in (data, *data.rglob("*"))}
    assert {"jwt-secret", "legato.db", "valkey.sock", "valkey.lock", "valkey.pid", "appendonlydir"} <= set(
        modes
    )
    assert set(modes.values()) == {0}, modes
    assert call(f"{legato.url}/dev/config")["provider"] == "scripted"
    metrics = legato.line(r"Metrics: (\S+)")[1]
    with urllib.request.urlopen(metrics, timeout=60) as response:
        assert b"# TYPE" in response.read()
    reply = send(legato, "#script tokens=3 rate=0")
    wait(lambda: reply()["status"] == "complete")


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP, signal.SIGHUP)],
    ids=["Ctrl-C", "SIGTERM", "closed terminal"],
)
def test_it_ends_within_five_seconds_and_leaves_nothing(
    legato: Legato, signals: tuple[signal.Signals, ...]
) -> None:
    """In the middle of a reply, with a client that stays connected.

    On a busy machine, where the start takes long, the end may take longer too.
    """
    pids = parts(legato)
    assert pids.keys() == PARTS.keys()
    reply = send(legato, "#script tokens=2000 rate=20")
    wait(lambda: reply()["nextIndex"] > 5)
    with socket.create_connection(("127.0.0.1", legato.port)) as client:
        client.sendall(
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert client.recv(12) == b"HTTP/1.1 101"
        started = time.monotonic()
        for number in signals:
            legato.process.send_signal(number)
        assert legato.ended(60) == 0
        assert time.monotonic() - started < max(5, 3 * legato.start_seconds)
    wait(lambda: not any(map(alive, pids.values())))
    assert re.search(r"^broadcaster \| .* stopped$", legato.output, re.MULTILINE), "in order, not killed"
    assert "Traceback" not in legato.output
    assert "SIGKILL" not in legato.output


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_crashes_is_reported_started_again_and_of_use(
    shared: tuple[Legato, Path], name: str
) -> None:
    legato, _ = shared
    pid = parts(legato)[name]
    os.kill(pid, signal.SIGKILL)
    legato.line(rf"legato +\| {name} was killed by SIGKILL; it starts again in 1 s")
    wait(lambda: parts(legato).get(name, pid) != pid)

    def replies() -> bool:
        try:
            reply = send(legato, "#script tokens=3 rate=0")
            return bool(wait(lambda: reply()["status"] == "complete", 15))
        except (OSError, AssertionError):  # not yet: HTTP errors are OSErrors, too
            return False

    wait(replies)


def test_a_parent_that_is_killed_leaves_nothing(legato: Legato) -> None:
    pids = parts(legato)
    assert pids.keys() == PARTS.keys()
    legato.process.kill()
    wait(lambda: not any(map(alive, pids.values())))


def test_a_second_one_on_the_same_data_is_refused(shared: tuple[Legato, Path]) -> None:
    legato, data = shared
    second = Legato(data)
    try:
        assert second.ended() == 1
        line = f"legato up: {data} is in use by process {legato.process.pid}: "
        assert second.output == f"{line}stop it, or set LEGATO_DATA to another place\n"
    finally:
        second.close()


def test_the_model_is_named_and_its_key_is_the_workers_alone(data: Path) -> None:
    with legato_up(data, ANTHROPIC_API_KEY="sk-hush", ANTHROPIC_BASE_URL="http://127.0.0.1:1") as legato:
        assert "Replies come from Anthropic (claude-sonnet-4-6)" in legato.output.splitlines()
        config = call(f"{legato.url}/dev/config")
        assert (config["provider"], config["model"]) == ("anthropic", "claude-sonnet-4-6")
        environs = {name: Path(f"/proc/{pid}/environ").read_text() for name, pid in parts(legato).items()}
        assert [name for name, text in environs.items() if "sk-hush" in text] == ["worker"]
        assert "sk-hush" not in legato.output


def test_a_reply_that_waits_for_an_approval_outlives_everything(data: Path, tmp_path: Path) -> None:
    """Every process is killed at once; the next start has the same data, and accepts the same token."""
    refunds = tmp_path / "refunds.db"
    environ = {"LEGATO_WORKER_AGENT": "docs.examples.refund:agent", "REFUNDS_DB": str(refunds)}
    message = '#script rate=0 tool=refund:{"order": "A-1", "cents": 1250} echo'
    with legato_up(data, **environ) as legato:
        reply = send(legato, message)
        asked = wait(lambda: reply()["status"] == "waiting" and reply())
        pids = [legato.process.pid, *parts(legato).values()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait(lambda: legato.process.poll() is not None and not any(map(alive, pids[1:])))
    assert not refunds.exists()
    with legato_up(data, **environ) as again:
        reply.url = reply.url.replace(legato.url, again.url)
        assert reply() == asked
        [tool] = {part["call"] for part in asked["parts"] if "call" in part}
        path = reply.url.partition("?")[0]
        assert call(f"{path}/tools/{tool}", {"approve": True}, **reply.headers) == {"decided": True}
        answer = wait(lambda: reply()["status"] == "complete" and reply())
    assert "Refunded 1250 cents of order A-1, 1250 in all." in answer["text"]
    with closing(sqlite3.connect(refunds)) as till:
        assert till.execute("SELECT key, of, cents FROM refunds").fetchall() == [(tool, "A-1", 1250)]


def test_a_data_directory_may_have_any_name_and_a_level_hides_lines(tmp_path: Path) -> None:
    data = tmp_path / "a b?mode=ro&100%41#1"
    with legato_up(data, LEGATO_LOG_LEVEL="warning") as legato:
        reply = send(legato, "#script tokens=3 rate=0")
        wait(lambda: reply()["status"] == "complete")
        assert legato.stop() == 0
    assert (data / "legato.db").stat().st_size > 0
    assert " info " not in legato.output
    assert [path.name for path in tmp_path.iterdir()] == [data.name]


def test_it_does_not_depend_on_where_it_is_called(tmp_path: Path, data: Path) -> None:
    """A directory with modules of our names, called by `legato` itself."""
    for name in ("deploy", "broadcaster", "worker", "protocol"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    done = subprocess.run(
        [Path(sys.executable).with_name("legato"), "up", "--data", data],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PORT": "none"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == "legato up: PORT: expected a number from 1 to 65535, got 'none'\n"


def test_an_agent_answers_and_a_changed_one_answers_next(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bot.py"
    text = "async def reply(turn):\n    yield 'version {}'\n"
    path.write_text(text.format(1))
    with legato_up(data, LEGATO_WORKER_AGENT="bot:reply") as legato:
        assert "Agent:   bot:reply, reloaded when its files change" in legato.output.splitlines()
        reply = send(legato, "Hi")
        assert wait(lambda: reply()["status"] == "complete" and reply())["text"] == "version 1"
        changed = tmp_path / "bot.tmp"
        changed.write_text(text.format(2))
        os.utime(changed, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))
        changed.replace(path)
        legato.line("agents reloaded")
        reply = send(legato, "Hi")
        assert wait(lambda: reply()["status"] == "complete" and reply())["text"] == "version 2"


def test_an_agent_that_is_not_there_ends_it(data: Path) -> None:
    legato = Legato(data, LEGATO_WORKER_AGENT="nowhere_to_be_found:agent")
    try:
        assert legato.ended() == 2
    finally:
        legato.close()
    assert "worker.agent: nowhere_to_be_found cannot be imported: ModuleNotFoundError" in legato.output
    assert "Traceback" not in legato.output
