"""docs/examples and docs/frontend.md: front ends in Chromium, the back ends behind them, what PHP signs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.conftest import BINARIES
from tests.e2e.conftest import Legato, Process, free_port
from tests.e2e.scenarios import HERE, pass_all
from tests.redis_servers import RedisServer
from tests.waiting import WAIT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
UVICORN = (sys.executable, "-m", "uvicorn", "--port", "0", "--app-dir")


class Stack:
    """`legato up` on a Redis, the built front ends, and what back ends have to know of both."""

    def __init__(self, legato: Legato, server: RedisServer, data: Path, built: Path) -> None:
        self.legato = legato
        self.redis = server
        self.built = built
        self.environ = {
            "REDIS_URL": server.url,
            "LEGATO_AUTH_JWT_SECRET": (data / "jwt-secret").read_text().strip(),
            "CHAT_PAGE": str(built / "article" / "dist"),
        }


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    data, built = tmp_path_factory.mktemp("legato"), tmp_path_factory.mktemp("built")
    with contextlib.ExitStack() as closing:
        server = closing.enter_context(RedisServer(BINARIES["redis"]))
        origins = {cors_variable(): "http://localhost:*,http://127.0.0.1:*"}
        legato = Legato(data, REDIS_URL=server.url, **origins)
        closing.callback(legato.close)
        build(built, legato.url)  # while it starts
        legato.line("Ctrl-C")
        yield Stack(legato, server, data, built)
        assert legato.stop() == 0
        assert "Traceback" not in legato.output


def cors_variable() -> str:
    """As the first step of docs/frontend.md has it; a wrong one would stop the start."""
    first = (EXAMPLES.parent / "frontend.md").read_text().partition("## 2.")[0]
    match = re.search(r"^(LEGATO_\w+)=http://localhost:3000 legato up$", first, re.MULTILINE)
    assert match is not None
    return match[1]


def build(folder: Path, url: str) -> None:
    command = ["node", "build-examples.mjs", str(folder)]
    done = subprocess.run(
        command,
        cwd=HERE,
        env=os.environ | {"LEGATO_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def back_end(*command: str, **environ: str) -> Iterator[Process]:
    """A process that serves; it must not have failed at anything."""
    process = Process(command=command, **environ)
    try:
        yield process
    finally:
        process.close()
    assert "Traceback" not in process.output, process.output


@pytest.mark.timeout(700)
def test_front_ends_and_back_ends_in_chromium(stack, tmp_path):
    django = str(EXAMPLES / "django")
    migrate = f"{sys.executable} {django}/project.py migrate --verbosity 0"
    uvicorn = " ".join(UVICORN)
    with (
        back_end(*UVICORN, str(EXAMPLES / "fastapi"), "main:app", **stack.environ) as fastapi_example,
        back_end(
            *("sh", "-c", f"{migrate} && exec {uvicorn} {django} project:application"),
            **stack.environ | {"DATABASE": str(tmp_path / "db.sqlite3")},
        ) as django_example,
    ):
        pass_all(
            "examples",
            seconds=600,
            said=lambda: stack.legato.output + fastapi_example.output + django_example.output,
            LEGATO_URL=stack.legato.url,
            EXAMPLES=str(stack.built),
            FASTAPI_URL=address(fastapi_example),
            DJANGO_URL=address(django_example),
        )


def address(process: Process) -> str:
    return process.line(r"running on (http://127\.0\.0\.1:\d+)")[1]


@pytest.mark.timeout(700)
def test_the_page_for_front_ends(stack):
    """Its commands and its code, from an empty folder to a reply in Chromium."""
    told = {"LEGATO_URL": stack.legato.url, "PAGE_PORT": str(free_port())}
    pass_all("frontend", seconds=600, said=lambda: stack.legato.output, **told)


PHP = """
require 'app/Legato.php';
use App\\Legato;
[, $socket, $secret, $message] = $argv;
$redis = new Redis();
$redis->connect($socket);
$redis->setOption(Redis::OPT_PREFIX, 'laravel_database_');  // as Laravel does; `executeRaw` is `rawCommand`
$job = Legato::job('1', 7, 'php-1', $message, [['role' => 'user', 'content' => "\\u{e4}\\u{1f600}"]]);
$redis->rawCommand('XADD', Legato::jobs(), '*', 'job', $job);
echo json_encode(['token' => Legato::token(7, $secret), 'flag' => Legato::cancelFlag('x')]);
"""


def test_tokens_and_jobs_of_php(stack):
    """What `Legato.php` signs, the server accepts; what it submits, the worker answers."""
    for file in EXAMPLES.rglob("*.php"):
        subprocess.run(["php", "-l", file], capture_output=True, check=True, timeout=WAIT)
    secret = stack.environ["LEGATO_AUTH_JWT_SECRET"]
    made = subprocess.run(
        ["php", "-r", PHP, "--", str(stack.redis.socket), secret, "#script tokens=3 rate=0"],
        cwd=EXAMPLES / "laravel",
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    printed = json.loads(made.stdout)
    assert printed["flag"] == "stream_cancel:x"
    with redis.Redis.from_url(stack.redis.url) as client:
        message = "legato:msg:{1:private-ai-chat.7}:php-1"
        wait_until(lambda: client.hget(message, "state") == b"complete", interval=0.05)
    request = urllib.request.Request(
        f"{stack.legato.url}/api/chat/php-1", headers={"Authorization": f"Bearer {printed['token']}"}
    )
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        assert json.load(answer)["text"] == "w0 w1 w2 "
