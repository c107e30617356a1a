"""Supervision, with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from legato.deploy import children
from legato.deploy.children import ProcessTree, Spec, describe
from legato.deploy.errors import CommandError
from tests.deploy.screen import SECONDS, Screen, alive, screen, unmeasured
from tests.waiting import until, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY = re.compile("^ready")
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STAY = "import os, time; print(f'ready pid={os.getpid()}', flush=True); time.sleep(600)"


def python(name: str, code: str, **options: object) -> Spec:
    options = {"ready": READY, **options}
    return Spec(name, (sys.executable, "-c", code), unmeasured(), **options)  # type: ignore[arg-type]  # a test's own words


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Screen]:
    with screen(tmp_path / "out", "legato") as shown:
        yield shown


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "BACKOFF_FIRST", 0.05)
    monkeypatch.setattr(children, "BACKOFF_MAX", 0.2)


async def run(
    shown: Screen,
    *tiers: list[Spec],
    then: Callable[[], object] | None = None,
    stop_seconds: float = SECONDS,
    signals: tuple[signal.Signals, ...] = (signal.SIGTERM,),
) -> None:
    """Run a tree until it ends: when all are ready, ``then`` is called and ``signals`` ask it to end."""

    async def begin(tree: ProcessTree) -> None:
        for tier in tiers:
            tree.start(*tier)
            await tree.ready()
        if then is not None:
            result = then()
            if asyncio.iscoroutine(result):
                await result
            for number in signals:
                os.kill(os.getpid(), number)

    try:
        await ProcessTree(shown.console, stop_seconds).run(begin)
    finally:
        await shown.settled()


async def test_lines_of_a_child_carry_its_name_both_streams(shown: Screen) -> None:
    code = f"import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); {STAY}"
    await run(shown, [python("one", code)], then=lambda: None)
    assert "one    | out\none    | err\none    | ready" in shown.text


async def test_hidden_lines_are_not_shown(shown: Screen) -> None:
    await run(shown, [python("one", f"print('noise'); {STAY}", hide=re.compile("nois"))], then=lambda: None)
    assert "noise" not in shown.text
    assert "ready" in shown.text


@pytest.mark.usefixtures("quick")
async def test_a_killed_child_is_reported_by_signal_and_started_again(shown: Screen) -> None:
    pids = []

    async def kill_and_wait() -> None:
        await shown.shows("ready")
        pids.append(shown.value("pid"))
        os.kill(pids[0], signal.SIGKILL)
        await shown.shows("ready", times=2)
        pids.append(shown.value("pid"))

    await run(shown, [python("one", STAY)], then=kill_and_wait)
    assert "legato | one was killed by SIGKILL; it starts again in 0.05 s" in shown.text
    assert pids[0] != pids[1]
    assert not any(map(alive, pids))


@pytest.mark.usefixtures("quick")
async def test_what_a_crashed_child_leaves_in_its_group_is_ended(shown: Screen) -> None:
    """A grandchild that is on no leash, and holds the pipe open."""
    code = (
        "import subprocess, sys; left = subprocess.Popen(['sleep', '600']);"
        "print(f'ready pid={left.pid}', flush=True); raise SystemExit(3)"
    )
    await run(shown, [python("one", code)], then=lambda: shown.shows("it starts again"))
    pid = int(re.findall(r"pid=(\d+)", shown.text)[0])
    await until(lambda: not alive(pid))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("forgiven", "expected"), [(600, ["0.05", "0.1", "0.2", "0.2"]), (0, ["0.05", "0.05", "0.05", "0.05"])]
)
async def test_restarts_back_off_unless_it_ran_for_long(
    shown: Screen, monkeypatch: pytest.MonkeyPatch, forgiven: float, expected: list[str]
) -> None:
    """Doubled up to the bound; from the beginning after a run that was long enough, here any or none."""
    monkeypatch.setattr(children, "FORGIVEN_SECONDS", forgiven)
    code = "print('ready', flush=True); raise SystemExit(3)"
    await run(shown, [python("one", code)], then=lambda: shown.shows("it starts again", times=4))
    delays = re.findall(r"exit status 3; it starts again in (\S+) s", shown.text)
    assert delays[:4] == expected


async def test_the_real_backoff_is_a_second_doubling_to_ten() -> None:
    assert (children.BACKOFF_FIRST, children.BACKOFF_MAX, children.FORGIVEN_SECONDS) == (1, 10, 10)


async def test_bad_configuration_ends_the_family_with_2(shown: Screen) -> None:
    code = "print('ready', flush=True); print('x.toml: port: expected a number'); raise SystemExit(2)"
    with pytest.raises(CommandError, match="one ended with exit status 2: its lines say why") as caught:
        await run(shown, [python("other", STAY)], [python("one", code)])
    assert caught.value.status == 2
    assert "x.toml: port: expected a number" in shown.text
    assert not alive(shown.value("pid"))


async def test_a_child_that_never_gets_ready_ends_the_family(shown: Screen) -> None:
    with pytest.raises(CommandError, match="one ended with exit status 5 before it was ready") as caught:
        await run(shown, [python("one", "raise SystemExit(5)")])
    assert caught.value.status == 1


async def test_a_child_that_is_too_slow_ends_the_family(shown: Screen) -> None:
    slow = python("one", "import time; time.sleep(600)", ready_seconds=0.3)
    with pytest.raises(CommandError, match=r"one was not ready after 0\.3 s"):
        await run(shown, [slow])


async def test_a_program_that_cannot_be_started_is_one_line(shown: Screen) -> None:
    with pytest.raises(CommandError, match="exit status 127"):
        await run(shown, [Spec("one", ("/no/such/program",), {}, ready=READY)])
    assert "one    | /no/such/program cannot be started: No such file or directory" in shown.text


async def test_a_process_that_the_kernel_refuses_is_one_line(shown: Screen) -> None:
    with pytest.raises(CommandError, match="exit status 127 before it was ready"):
        await run(shown, [Spec("one", ("echo", "x" * 1_000_000), {}, ready=READY)])
    assert "legato | one cannot be started: Argument list too long" in shown.text


async def test_a_child_that_is_no_longer_watched_ends_the_family(
    shown: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(children.Child, "_show", broken)
    with pytest.raises(CommandError, match=r"one is no longer watched: RuntimeError\('a defect'\)"):
        await run(shown, [python("one", "print('ready')")])


async def test_readiness_may_be_asked_for(shown: Screen, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    async def exists() -> bool:
        return marker.exists()

    code = f"import time, pathlib; time.sleep(0.2); pathlib.Path({str(marker)!r}).touch(); time.sleep(600)"
    await run(shown, [python("one", code, ready=exists)], then=lambda: until(marker.exists, 0.01))


def polite(name: str) -> Spec:
    code = f"import signal; signal.signal(15, lambda *_: (print('ending'), exit(0))); {STAY}"
    return python(name, code)


async def test_tiers_are_stopped_last_first(shown: Screen) -> None:
    await run(shown, [polite("a")], [polite("b"), polite("c")], [polite("d")], then=lambda: None)
    ended = re.findall(r"^(\w) +\| ending", shown.text, re.MULTILINE)
    assert (ended[0], set(ended[1:3]), ended[3]) == ("d", {"b", "c"}, "a")


async def test_all_is_over_in_five_seconds_whatever_they_do(shown: Screen) -> None:
    """Six tiers that ignore SIGTERM, one of which has a child of its own that does, too."""
    grandparent = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN + '; ' + STAY!r}])"
    )
    tiers = [[python(name, f"{STUBBORN}; {STAY}")] for name in "abcde"]
    tiers.append([python("f", f"{STUBBORN}; {grandparent}; import time; time.sleep(600)")])
    started = 0.0

    def stop() -> None:
        nonlocal started
        started = time.monotonic()

    await run(shown, *tiers, then=stop, stop_seconds=children.STOP_SECONDS)
    # The commands promise five seconds; if each tier had its own time, this would take six times as long.
    assert time.monotonic() - started < 4 * children.STOP_SECONDS
    pids = [int(pid) for pid in re.findall(r"pid=(\d+)", shown.text)]
    assert len(pids) == 6
    await until(lambda: not any(map(alive, pids)))


async def test_the_real_time_to_stop_is_below_five_seconds() -> None:
    assert children.STOP_SECONDS <= 4.5


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP ends a program, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize(
    ("signals", "same_seconds"),
    [
        ((signal.SIGINT, signal.SIGINT), 600),
        ((signal.SIGTERM, signal.SIGTERM), 0),
        ((signal.SIGHUP, signal.SIGTERM), 0),
        ((signal.SIGTERM, signal.SIGINT), 0),
    ],
)
async def test_a_second_wish_kills_at_once(
    shown: Screen, monkeypatch: pytest.MonkeyPatch, signals: tuple[signal.Signals, ...], same_seconds: float
) -> None:
    """Ctrl-C twice, however fast; anything else when it comes later than what belongs to the first."""
    monkeypatch.setattr(children, "SAME_SECONDS", same_seconds)
    stubborn = python("one", f"{STUBBORN}; {STAY}")
    async with asyncio.timeout(SECONDS):
        await run(shown, [stubborn], then=lambda: None, signals=signals, stop_seconds=600)
    assert not alive(shown.value("pid"))


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGHUP, signal.SIGHUP),  # a terminal is closed: the kernel, then the shell
        (signal.SIGTERM, signal.SIGTERM),  # `timeout`: the process, then its group
        (signal.SIGTERM, signal.SIGHUP),  # systemd with SendSIGHUP
        (signal.SIGHUP, signal.SIGINT),
    ],
)
async def test_signals_that_come_together_are_one_wish(
    shown: Screen, monkeypatch: pytest.MonkeyPatch, signals: tuple[signal.Signals, ...]
) -> None:
    monkeypatch.setattr(children, "SAME_SECONDS", 600)
    await run(shown, [polite("one")], then=lambda: None, signals=signals)
    assert "one    | ending\n" in shown.text
    assert shown.text.count("stopping; the same again stops at once") == 1


async def test_sighup_is_passed_on_where_it_is_no_stop(shown: Screen) -> None:
    """To each child once it is ready, and to none once they are to stop."""
    heard = "import os, signal; signal.signal(signal.SIGHUP, lambda *_: print('heard', flush=True))"
    late = f"os.read(int(os.environ['GATE']), 1); {heard}; {STAY}"
    gate, opener = os.pipe()
    calls: list[asyncio.Task[None]] = []

    def hang_up(tree: ProcessTree) -> None:
        calls.append(asyncio.create_task(tree.hang_up()))

    async def begin(tree: ProcessTree) -> None:
        waits = python("two", f"import os; {late}", pass_fds=(gate,))
        tree.start(
            python("one", f"{heard}; {STAY}"), replace(waits, environ={**waits.environ, "GATE": str(gate)})
        )
        await shown.shows("one    | ready")
        os.kill(os.getpid(), signal.SIGHUP)
        await shown.shows("one    | heard")
        os.write(opener, b"x")
        await shown.shows("two    | heard")
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    try:
        await ProcessTree(shown.console, SECONDS, hang_up).run(begin)
    finally:
        os.close(gate)
        os.close(opener)
    await shown.settled()
    assert len(calls) == 1
    assert "was killed" not in shown.text


def test_the_real_time_for_signals_that_come_together_is_half_a_second() -> None:
    assert children.SAME_SECONDS == 0.5


async def test_a_failure_is_not_a_wish_to_stop(shown: Screen) -> None:
    """Ctrl-C while the others end because one failed: they may end in order, still."""
    slow = "import signal, time; signal.signal(15, lambda *_: (print('told', flush=True), time.sleep(0.5),"
    slow += f" print('ending'), exit(0))); {STAY}"

    async def begin(tree: ProcessTree) -> None:
        tree.start(python("other", slow))
        await tree.ready()
        tree.start(python("one", "print('ready', flush=True); raise SystemExit(2)"))
        await shown.shows("told")

    async def interrupt() -> None:
        await shown.shows("told")
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = asyncio.create_task(interrupt())
    with pytest.raises(CommandError, match="one ended with exit status 2"):
        await ProcessTree(shown.console, SECONDS).run(begin)
    await interrupting
    await shown.settled()
    assert "other  | ending" in shown.text


async def test_ctrl_c_while_they_start_ends_them(shown: Screen) -> None:
    async def begin(tree: ProcessTree) -> None:
        tree.start(python("one", STAY.replace("ready", "not yet")))
        await shown.shows("not yet")
        os.kill(os.getpid(), signal.SIGINT)
        await tree.ready()

    await ProcessTree(shown.console).run(begin)
    assert not alive(shown.value("pid"))


@pytest.mark.usefixtures("quick")
async def test_stopping_does_not_wait_for_a_restart(shown: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "BACKOFF_FIRST", 600)
    monkeypatch.setattr(children, "BACKOFF_MAX", 600)
    async with asyncio.timeout(SECONDS):
        await run(shown, [python("one", "print('ready')")], then=lambda: shown.shows("again in 600 s"))


async def test_a_failure_of_begin_stops_what_it_started(shown: Screen) -> None:
    async def begin(tree: ProcessTree) -> None:
        tree.start(python("one", STAY))
        await shown.shows("ready")
        raise CommandError("no")

    with pytest.raises(CommandError, match="no"):
        await ProcessTree(shown.console).run(begin)
    assert not alive(shown.value("pid"))


PARENT = f"""
import asyncio, os, re, sys
from legato.deploy.children import ProcessTree, Spec
from legato.deploy.console import Console

CHILD = {STAY!r}

async def main():
    command = (sys.executable, "-c", CHILD) if sys.argv[1] == "0" else (sys.executable, "-c", PARENT, "0")
    async def begin(tree):
        tree.start(Spec("child", command, dict(os.environ), ready=re.compile("ready")))
        await tree.ready()
        print(f"parent pid={{os.getpid()}}", flush=True)
    await ProcessTree(Console(1, ["child"], colour=False)).run(begin)

PARENT = sys.orig_argv[2]
asyncio.run(main())
"""


@pytest.mark.parametrize("generations", ["0", "1"])
def test_nobody_outlives_a_parent_that_was_killed(generations: str) -> None:
    """SIGKILL reaches the parent alone; the kernel ends its children, and theirs."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, generations],
        env=unmeasured(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        try:
            pids = _read_pids(parent, int(generations) + 2)
            assert all(map(alive, pids))
        finally:
            parent.kill()
        wait_until(lambda: not any(map(alive, pids)))


def _read_pids(process: subprocess.Popen[str], number: int) -> list[int]:
    assert process.stdout is not None
    pids: list[int] = []
    while len(pids) < number:
        line = process.stdout.readline()
        assert line, "it ended"
        pids += map(int, re.findall(r"pid=(\d+)", line))
    return pids


def test_a_child_whose_parent_is_gone_before_it_is_on_the_leash_does_not_start() -> None:
    leash = Path(children.__file__).with_name("leash.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", leash, "1", "/bin/echo", "started"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (127, "")


def test_a_child_in_a_session_of_its_own_with_default_signals(tmp_path: Path) -> None:
    """Ctrl-C in the terminal reaches the parent alone, and a broken pipe ends a program as it should."""
    with screen(tmp_path / "out", "legato") as shown:
        code = f"import os;print(f'sid={{int(os.getsid(0) == os.getpid())}}'); {STAY}"
        asyncio.run(run(shown, [python("one", code)], then=lambda: None))
        assert shown.value("sid") == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit status 0"),
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
    ],
)
def test_exit_statuses_in_words(status: int, words: str) -> None:
    assert describe(status) == words
