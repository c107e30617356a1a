import asyncio

from legato.broadcaster.clients.timer_wheel import Wheel
from tests.waiting import until


class Entry:
    """Reschedules itself `times` times, a little later each time."""

    def __init__(self, times: int = 1) -> None:
        self.left = times
        self.checked: list[float] = []

    def check_at(self, now):
        self.checked.append(now)
        self.left -= 1
        return now + 0.1 if self.left else None


async def test_entries_are_checked_when_they_are_due_and_not_before():
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    soon, again, late = Entry(), Entry(2), Entry()
    start = loop.time()
    wheel.add(soon, start)
    wheel.add(again, start)
    wheel.add(late, start + 3600)
    await until(lambda: len(again.checked) == 2)
    assert len(soon.checked) == 1
    assert soon.checked[0] >= start
    assert late.checked == []
    wheel.close()


async def test_a_closed_wheel_checks_nothing():
    loop = asyncio.get_running_loop()
    wheel, entry = Wheel(loop), Entry()
    wheel.add(entry, loop.time())
    wheel.close()
    wheel.close()
    other = Wheel(loop)
    sentinel = Entry()
    other.add(sentinel, loop.time() + 1)
    await until(lambda: sentinel.checked)
    other.close()
    assert entry.checked == []
