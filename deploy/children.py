"""Starts child processes, restarts those that crash, and ends all with the parent.

A :class:`ProcessTree` is a list of tiers in start order. It ends on SIGINT, SIGTERM or SIGHUP (but see
``hang_up``), or when a child fails in a way that a restart cannot fix: it never became ready, or its settings
are wrong. Then tiers are stopped in reverse order, and killed after a fixed time.

Each child has its own session, so that Ctrl-C reaches only the parent, which stops the children in order.
Each is on a leash (:mod:`legato.deploy.leash`), so that it does not outlive a parent that is killed.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from legato.protocol.redis.retry import Backoff

from .console import OWN_NAME, LineSplitter
from .errors import BAD_USAGE, FAILED, CommandError
from .leash import NOT_STARTED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

    from .console import Console

BACKOFF_FIRST: Final = 1.0
BACKOFF_MAX: Final = 10.0
"""Seconds before a restart, doubled from the first to the longest."""

FORGIVEN_SECONDS: Final = 10.0
"""A run of at least this long resets the back-off."""

STOP_SECONDS: Final = 4.5
"""Default time from the stop until no process is left, so that a command ends within 5 seconds."""

SAME_SECONDS: Final = 0.5
"""Signals within this time count as one: closing a terminal sends two SIGHUPs (from the kernel and the
shell), ``timeout`` two SIGTERMs, systemd a SIGTERM and a SIGHUP.
"""

_KEPT_SECONDS: Final = 0.5  # reserved of that time for each later tier, and for kills
_POLL_SECONDS: Final = 0.05
_LEASH: Final = str(Path(__file__).with_name("leash.py"))


@dataclass(frozen=True)
class Spec:
    """One program to run.

    ``ready`` determines when it is ready: a pattern that matches one of its lines, or a function that is
    polled. Without it, a child is ready as soon as it runs. Lines that match ``hide`` are not shown.
    ``starts`` is called before each start. ``lasting``: its end never ends the tree, because the same
    program was ready before.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    ready: re.Pattern[str] | Callable[[], Awaitable[bool]] | None = None
    ready_seconds: float = 60.0
    hide: re.Pattern[str] | None = None
    pass_fds: tuple[int, ...] = ()
    starts: Callable[[], None] | None = None
    lasting: bool = False


def describe(status: int) -> str:
    """Describe an exit status of ``subprocess``; a negative one is the signal that killed the process."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"


class Child:
    """One program, restarted whenever it ends, until it is stopped."""

    def __init__(self, spec: Spec, console: Console, failed: Callable[[CommandError], None]) -> None:
        self.spec = spec
        self._console = console
        self._failed = failed
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._last_signal = signal.SIGTERM
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._run(), name=spec.name)
        self._task.add_done_callback(self._report_defect)

    async def ready(self) -> None:
        """Wait until the program is ready for the first time.

        :raises CommandError: it took longer than ``ready_seconds``.
        """
        try:
            async with asyncio.timeout(self.spec.ready_seconds):
                if callable(self.spec.ready):
                    while not await self.spec.ready():  # noqa: ASYNC110 - another process changes it
                        await asyncio.sleep(_POLL_SECONDS)
                    self._ready.set()
                await self._ready.wait()
        except TimeoutError:
            seconds = f"{self.spec.ready_seconds:g} s"
            raise CommandError(f"{self.spec.name} was not ready after {seconds}: its lines say why") from None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended and will not be restarted."""
        return self._task.done()

    def retire(self, number: signal.Signals | None = None) -> None:
        """Stop restarting it; it ends by itself, or on signal ``number``."""
        self._stopping.set()
        if number is not None:
            self._signal(number)

    def restart(self) -> None:
        """Kill it, and restart it as after a crash."""
        self._signal(signal.SIGKILL)

    async def hang_up(self) -> None:
        """Send SIGHUP once it is ready: before, the signal would end it."""
        await self._ready.wait()
        self._signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Send SIGTERM, and do not restart it."""
        self._stop_with(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with its process group."""
        self._stop_with(signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until it has ended after :meth:`terminate` or :meth:`kill`."""
        await asyncio.wait([self._task])

    def _stop_with(self, number: signal.Signals) -> None:
        self._last_signal = number
        self._stopping.set()
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)

    async def _run(self) -> None:
        backoff = Backoff(BACKOFF_FIRST, BACKOFF_MAX, jitter=0)
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            if not self.spec.lasting and (status == BAD_USAGE or not self._ready.is_set()):
                when = "" if self._ready.is_set() else " before it was ready"
                line = f"{self.spec.name} {describe(status)}{when}: its lines say why"
                self._failed(CommandError(line, BAD_USAGE if status == BAD_USAGE else FAILED))
                return
            if time.monotonic() - started >= FORGIVEN_SECONDS:
                backoff.reset()
            delay = backoff.next()
            self._say(f"{self.spec.name} {describe(status)}; it starts again in {delay:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_once(self) -> int:
        """Start it, show its output, and return its exit status, negative for a signal."""
        if self.spec.starts is not None:
            self.spec.starts()
        try:
            self._process, reading = await self._spawn()
        except OSError as error:  # no more processes, no more descriptors
            self._say(f"{self.spec.name} cannot be started: {error.strerror}")
            return NOT_STARTED
        if self._stopping.is_set():  # stopped in between
            self._signal(self._last_signal)
        if self.spec.ready is None:
            self._ready.set()
        status = await self._process.wait()
        self._signal(signal.SIGKILL)  # processes that it left behind in its group
        self._process = None
        await _finish(reading)
        return status

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        """The process, and the task that reads its output.

        It uses our own pipe, because asyncio's ``wait`` does not return while a grandchild holds a pipe open.
        """
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _LEASH, str(os.getpid()), *self.spec.command),
                env=self.spec.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.spec.pass_fds,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        return process, asyncio.create_task(self._read(read))

    async def _read(self, fd: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
        )
        splitter = LineSplitter()
        try:
            while data := await reader.read(65536):
                self._show(splitter.feed(data))
            self._show(splitter.end())
        finally:
            transport.close()

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            if not (self.spec.hide and self.spec.hide.search(line)):
                self._console.line(self.spec.name, line)
            if isinstance(self.spec.ready, re.Pattern) and self.spec.ready.search(line):
                self._ready.set()

    def _say(self, text: str) -> None:
        self._console.line(OWN_NAME, text)

    def _report_defect(self, task: asyncio.Task[None]) -> None:
        """Report a fault of this module, which would otherwise leave a child unwatched."""
        if not task.cancelled() and (error := task.exception()):
            self._failed(CommandError(f"{self.spec.name} is no longer watched: {error!r}"))


async def _finish(reading: asyncio.Task[None]) -> None:
    """Wait briefly for the reader to reach the end of the pipe."""
    try:
        await asyncio.wait_for(reading, 0.25)
    except TimeoutError:  # a grandchild holds the pipe open
        return


class ProcessTree:
    """Children in tiers. Call :meth:`run`.

    :param hang_up: called on SIGHUP while the tree is not stopping; None if SIGHUP stops it.
    """

    def __init__(
        self,
        console: Console,
        stop_seconds: float = STOP_SECONDS,
        hang_up: Callable[[ProcessTree], None] | None = None,
    ) -> None:
        self.console = console
        self._on_hang_up = hang_up
        self._stop_seconds = stop_seconds
        self._tiers: list[list[Child]] = []
        self._asked: tuple[float, signal.Signals] | None = None  # time and signal of the first stop
        self._end: asyncio.Future[CommandError | None] = asyncio.get_running_loop().create_future()

    def start(self, *specs: Spec) -> list[Child]:
        """Start a tier: children that are stopped together, before all earlier tiers."""
        self._tiers.append([Child(spec, self.console, self._fail) for spec in specs])
        return list(self._tiers[-1])

    def add(self, spec: Spec) -> Child:
        """Start one more child of the last tier."""
        child = Child(spec, self.console, self._fail)
        self._tiers[-1].append(child)
        return child

    def remove(self, child: Child) -> None:
        """Forget a child of the last tier that has ended."""
        self._tiers[-1].remove(child)

    async def hang_up(self) -> None:
        """Send SIGHUP to all children, to each once it is ready."""
        await asyncio.gather(*(child.hang_up() for child in self._children()))

    def end(self) -> None:
        """Stop all children, as a signal does."""
        if not self._end.done():
            self._end.set_result(None)

    async def ready(self) -> None:
        """Wait until all started children are ready.

        :raises CommandError: one of them was not ready in time.
        """
        for tier in self._tiers:
            for child in tier:
                await child.ready()

    async def run(self, begin: Callable[[ProcessTree], Coroutine[Any, Any, None]]) -> None:
        """Run ``begin``, which starts tiers, wait for a stop, and stop all children.

        :raises CommandError: of ``begin``, or for a child that a restart cannot fix.
        """
        with self._signals():
            beginning = asyncio.create_task(begin(self))
            try:
                either: set[asyncio.Future[Any]] = {beginning, self._end}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if beginning.done():
                    await beginning  # raise its exception
                error = await self._end
            finally:
                beginning.cancel()
                await asyncio.wait([beginning])
                await self._stop()
        if error:
            raise error

    def _fail(self, error: CommandError) -> None:
        if not self._end.done():
            self._end.set_result(error)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        # nohup ignores SIGHUP.
        if self._on_hang_up is not None or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._asked_to_stop, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP and self._on_hang_up is not None:
            if self._asked is None:
                self._on_hang_up(self)
            return
        if number is signal.SIGINT:
            self.console.print("")  # after the ^C that the terminal echoed
        if self._asked is None:
            self._asked = time.monotonic(), number
            self.console.line(OWN_NAME, "stopping; the same again stops at once")
            self.end()
        elif self._means_it(number):
            for child in self._children():
                child.kill()

    def _means_it(self, number: signal.Signals) -> bool:
        """Whether a further signal is a second request to stop. A second Ctrl-C always is."""
        if self._asked is None:
            return False
        when, first = self._asked
        return number is first is signal.SIGINT or time.monotonic() - when > SAME_SECONDS

    def _children(self) -> Iterator[Child]:
        for tier in self._tiers:
            yield from tier

    async def _stop(self) -> None:
        """Stop the tiers, last first. A tier that hangs leaves the others enough time to stop in order."""
        deadline = time.monotonic() + self._stop_seconds
        while self._tiers:
            tier = self._tiers[-1]
            for child in tier:
                child.terminate()
            left = deadline - time.monotonic() - _KEPT_SECONDS * len(self._tiers)
            await _all_ended(tier, max(0.0, left))
            for child in tier:
                child.kill()
            await _all_ended(tier, None)
            self._tiers.pop()


async def _all_ended(children: list[Child], seconds: float | None) -> None:
    if not children:
        return
    await asyncio.wait([asyncio.ensure_future(child.ended()) for child in children], timeout=seconds)
