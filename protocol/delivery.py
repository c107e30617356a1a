"""The queue and the retries of one webhook (protocol section 11.3).

No I/O and no clock: ``now`` is an argument, in seconds of any monotonic clock.

* Events of one channel are sent in order. While a request with some of them is in flight or waits for its
 retry, the channel's other events wait. Other channels do not.
* A retry has the same body, byte for byte. Only a request with several channels is split, because one of
 them may be what the receiver rejects. It is not split if the receiver could not be reached.
* After :attr:`RetryPolicy.down_after` consecutive failures the receiver is down: it gets one request every
 :attr:`RetryPolicy.probe` seconds. When it accepts one, the others are retried at once.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from legato.protocol import backoff

if TYPE_CHECKING:
    from collections.abc import Mapping


class RetryPolicy(NamedTuple):
    """When to retry and when to drop, in seconds.

    The first retry comes after ``first_retry``; the wait doubles with each, up to ``longest_retry``.
    """

    collect: float = 0.05
    first_retry: float = 1.0
    longest_retry: float = 60.0
    give_up: float = 300.0
    concurrency: int = 8
    down_after: int = 10
    probe: float = 1.0
    max_events: int = 10_000
    max_bytes: int = 16_777_216

    def wait(self, failures: int) -> float:
        """Seconds until the next attempt after this many failures."""
        return backoff.wait(failures, self.first_retry, self.longest_retry)


class _QueuedEvent(NamedTuple):
    content: bytes
    created: float


class Hook(NamedTuple):
    """One request: events by channel, in order per channel.

    ``time_ms`` is when it was made, Unix time in milliseconds; after ``deadline`` it is not retried.
    """

    parts: Mapping[str, tuple[bytes, ...]]
    time_ms: int
    deadline: float
    failures: int = 0

    @property
    def events(self) -> list[bytes]:
        """The events in sending order."""
        return [content for part in self.parts.values() for content in part]


class _Receiver:
    """What is known of the receiver: whether it is down, and when it may get the next request."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._in_flight = 0
        self._failures = 0
        self._last_start = 0.0

    @property
    def down(self) -> bool:
        """Whether it has failed too often in a row."""
        return self._failures >= self._policy.down_after

    def next_at(self, earliest: float) -> float | None:
        """When it may get a request that is due at ``earliest``; None if not before one is finished."""
        if self._in_flight >= self._policy.concurrency:
            return None
        return max(earliest, self._last_start + self._policy.probe if self.down else 0.0)

    def start(self, now: float) -> None:
        """A request is sent."""
        self._in_flight += 1
        self._last_start = now

    def accept(self) -> bool:
        """It accepted a request. Whether it was down."""
        self._in_flight -= 1
        was_down, self._failures = self.down, 0
        return was_down

    def fail(self) -> None:
        """A request failed."""
        self._in_flight -= 1
        self._failures += 1


class WebhookQueue:
    """The queue of one webhook.

    ``waiting`` counts events that are neither accepted nor dropped, ``dropped`` those that were dropped.
    """

    def __init__(self, policy: RetryPolicy, batch_size: int) -> None:
        """``batch_size`` is the largest number of events in one request."""
        self.waiting = 0
        self.dropped = 0
        self._bytes = 0
        self._policy = policy
        self._batch_size = batch_size
        # A channel is a key as long as it has an event here or in a hook; in `_ready` if not in a hook.
        self._channels: dict[str, deque[_QueuedEvent]] = {}
        self._ready: deque[str] = deque()
        self._ready_at = 0.0
        self._retries: list[tuple[float, int, Hook]] = []
        self._order = 0
        self._receiver = _Receiver(policy)

    def add(self, channel: str, content: bytes, now: float) -> bool:
        """Queue an event, or drop it if the queue is full."""
        size = len(content)
        if self.waiting >= self._policy.max_events or self._bytes + size > self._policy.max_bytes:
            self.dropped += 1
            return False
        self.waiting += 1
        self._bytes += size
        if channel not in self._channels:
            self._channels[channel] = deque()
            self._make_ready(channel, now)
        self._channels[channel].append(_QueuedEvent(content, now))
        return True

    def wake_at(self) -> float | None:
        """When :meth:`take` may next return a request; None if not before another method is called."""
        times = [self._retries[0][0]] if self._retries else []
        times += [self._ready_at] if self._ready else []
        return self._receiver.next_at(min(times)) if times else None

    def take(self, now: float, time_ms: int) -> Hook | None:
        """The next request to send. Finish it with :meth:`accepted` or :meth:`failed`."""
        while (wake := self.wake_at()) is not None and wake <= now:
            if self._retries and (not self._ready or self._retries[0][0] <= self._ready_at):
                hook = heappop(self._retries)[2]
            else:
                hook = Hook(self._next_parts(now), time_ms, now + self._policy.give_up)
            if hook.parts:
                self._receiver.start(now)
                return hook
        return None

    def accepted(self, hook: Hook, now: float) -> None:
        """The receiver accepted the request."""
        if self._receiver.accept():
            self._retries = [(now, order, waiting) for _, order, waiting in self._retries]
            self._retries.sort(key=lambda retry: retry[1])
        self._end(hook, now)

    def failed(self, hook: Hook, now: float, *, reached: bool) -> None:
        """Schedule a retry of the request, or drop it.

        :param reached: whether the receiver may have read the request.
        """
        self._receiver.fail()
        failures = hook.failures + 1
        retry_at = now + self._policy.wait(failures)
        if retry_at > hook.deadline:
            self.dropped += len(hook.events)
            self._end(hook, now)
            return
        together = [hook.parts] if not reached else [{channel: part} for channel, part in hook.parts.items()]
        for parts in together:
            self._order += 1
            heappush(self._retries, (retry_at, self._order, hook._replace(parts=parts, failures=failures)))

    def abandon(self) -> None:
        """Drop everything."""
        self.dropped += self.waiting
        self.waiting = self._bytes = 0
        self._channels.clear()
        self._ready.clear()
        self._retries.clear()

    def _next_parts(self, now: float) -> dict[str, tuple[bytes, ...]]:
        parts: dict[str, tuple[bytes, ...]] = {}
        room = self._batch_size
        while self._ready and room:
            channel = self._ready.popleft()
            events = self._channels[channel]
            self._drop_stale(events, now)
            part = tuple(events.popleft().content for _ in range(min(room, len(events))))
            if part:
                parts[channel] = part
                room -= len(part)
            else:
                del self._channels[channel]
        return parts

    def _drop_stale(self, events: deque[_QueuedEvent], now: float) -> None:
        """Drop the events that waited past their deadline."""
        while events and events[0].created + self._policy.give_up < now:
            self._forget(events.popleft().content)
            self.dropped += 1

    def _end(self, hook: Hook, now: float) -> None:
        for content in hook.events:
            self._forget(content)
        for channel in hook.parts:
            if self._channels[channel]:
                self._make_ready(channel, now)
            else:
                del self._channels[channel]

    def _make_ready(self, channel: str, now: float) -> None:
        if not self._ready:
            self._ready_at = now + (self._policy.collect if self._batch_size > 1 else 0.0)
        self._ready.append(channel)

    def _forget(self, content: bytes) -> None:
        self.waiting -= 1
        self._bytes -= len(content)
