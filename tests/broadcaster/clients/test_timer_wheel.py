from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legato.broadcaster.clients.timer_wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A clock that is moved by hand, and the timers that a wheel sets by it."""

    def __init__(self) -> None:
        self.now = 100.3
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        """In steps of a hundredth."""
        for _ in range(round(seconds * 100)):
            self.now += 0.01
            due = [timer for timer in self.timers if timer.when <= self.now]
            self.timers = [timer for timer in self.timers if timer.when > self.now]
            for timer in due:
                if not timer.cancelled:
                    timer.callback()


class Entry:
    """Reschedules itself `times` times, a little later each time."""

    def __init__(self, times: int = 1) -> None:
        self.left = times
        self.checked: list[float] = []

    def check_at(self, now):
        self.checked.append(now)
        self.left -= 1
        return now + 0.1 if self.left else None


def test_entries_are_checked_when_they_are_due_and_not_before():
    loop: Any = Loop()
    wheel, start = Wheel(loop), loop.time()
    soon, again, late = Entry(), Entry(2), Entry()
    wheel.add(soon, start)
    wheel.add(again, start)
    wheel.add(late, start + 20)
    loop.pass_time(10)
    assert len(soon.checked) == 1
    assert start <= soon.checked[0] <= start + 2
    assert len(again.checked) == 2
    assert soon.checked[0] + 0.1 <= again.checked[1] <= soon.checked[0] + 2.1
    assert late.checked == []
    loop.pass_time(13)
    assert start + 20 <= late.checked[0] <= start + 22


def test_with_no_entry_no_timer_runs():
    loop: Any = Loop()
    wheel = Wheel(loop)
    wheel.add(Entry(), loop.time())
    assert len(loop.timers) == 1
    wheel.add(Entry(), loop.time() + 3)
    assert len(loop.timers) == 1
    loop.pass_time(10)
    assert loop.timers == []


def test_a_closed_wheel_checks_nothing():
    loop: Any = Loop()
    wheel, entry = Wheel(loop), Entry()
    wheel.add(entry, loop.time())
    wheel.close()
    wheel.close()
    assert all(timer.cancelled for timer in loop.timers)
    loop.pass_time(5)
    assert entry.checked == []
