"""The endpoints that publish: events, batches, and commands to a user's connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.broadcaster.channels.subscriber import Key
from legato.protocol import users
from legato.protocol.wire import CACHED, RECONNECT, TERMINATE, Envelope

from .events import (
    ApiError,
    BatchEvent,
    Publication,
    decode_batch,
    decode_event,
    publication,
    without_halves,
)
from .requests import ACCEPTED, Accepted, attributes
from .unheard import Unheard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legato.broadcaster.bus.base import Bus
    from legato.broadcaster.registry.base import Registry
    from legato.protocol.apps import App

    from .queries import Queries
    from .requests import ApiRequest, Outcome, Told
    from .running import RequestTasks


class Publishing:
    """Publishes events of applications. Validates all events of a request before publishing the first.

    :param running: runs requests that have to wait.
    """

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        queries: Queries,
        running: RequestTasks,
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._queries = queries
        self._running = running
        self._unheard = Unheard(registry)

    def events(self, request: ApiRequest) -> Outcome:
        """``POST events``."""
        event = decode_event(request.params, request.body)
        names = event.channels if event.channels is not None else (event.channel,)
        channels = tuple(dict.fromkeys([name for name in names if name is not None]))
        limit = request.app.max_channels_per_event
        if not 1 <= len(channels) <= limit:
            raise ApiError(400, f"Expected 1 to {limit} channels")
        rows = [publication(request.app, event, channel) for channel in channels]
        if self._unheard.wanted:
            self._running.start(self._unheard.look(rows))
        if event.info is None:
            return self._published(request.app, rows, ACCEPTED)
        return self._running.start(self._publish_with_info(request.app, rows, channels, event.info))

    def batch_events(self, request: ApiRequest) -> Outcome:
        """``POST batch_events``."""
        events = decode_batch(request.body)
        limit = request.app.max_events_per_batch
        if len(events) > limit:
            raise ApiError(400, f"Batch too large (> {limit})")
        if not events:
            raise ApiError(400, f"Expected 1 to {limit} events")
        rows = [publication(request.app, event, event.channel) for event in events]
        if self._unheard.wanted:
            self._running.start(self._unheard.look(rows))
        if all(event.info is None for event in events):
            return self._published(request.app, rows, ACCEPTED)
        return self._running.start(self._publish_batch_with_info(request.app, rows, events))

    def event_on_channel(self, request: ApiRequest) -> Outcome:
        """``POST channels/*/events``, deprecated: the body is the data itself (section 10.9)."""
        try:
            data = request.body.decode()
        except UnicodeDecodeError as error:
            raise ApiError(400, "The body is not UTF-8") from error
        name = request.params.get("name", "")
        if not name:
            raise ApiError(400, "Expected an event name")
        event = BatchEvent(name, data, request.names[0], request.params.get("socket_id") or None)
        rows = [publication(request.app, event, event.channel)]
        if self._unheard.wanted:
            self._running.start(self._unheard.look(rows))
        return self._published(request.app, rows, (202, {}))

    def _published(self, app: App, rows: list[Publication], told: Told) -> Outcome:
        """Publish validated events; without waiting, unless a cache channel or the bus requires it."""
        if any([row.cached for row in rows]):  # noqa: C419 - a generator costs more than so few rows
            return self._running.start(self._publish_then(app, rows, told))
        accepted = self._bus.post([(row.key, row.envelope) for row in rows])
        if accepted is None:
            return told
        return Accepted(accepted, told)

    async def _publish_then(self, app: App, rows: list[Publication], told: Told) -> Told:
        await self._publish(app, rows)
        return told

    async def _publish(self, app: App, rows: list[Publication]) -> None:
        """Store the events of cache channels, then publish all."""
        await self._bus.publish(
            [(row.key, await self._cached_envelope(app, row) if row.cached else row.envelope) for row in rows]
        )

    async def _cached_envelope(self, app: App, row: Publication) -> Envelope:
        version = await self._registry.remember(
            row.key, without_halves(row.name), without_halves(row.data), app.cache_seconds
        )
        return row.envelope._replace(command=CACHED, detail=str(version))

    async def _publish_with_info(
        self, app: App, rows: list[Publication], channels: tuple[str, ...], info: str
    ) -> Told:
        await self._publish(app, rows)
        infos = await self._queries.infos(app, channels, attributes(info))
        return 200, {"channels": dict(zip(channels, infos, strict=True))}

    async def _publish_batch_with_info(
        self, app: App, rows: list[Publication], events: Sequence[BatchEvent]
    ) -> Told:
        await self._publish(app, rows)
        infos = [await self._queries.infos(app, (event.channel,), attributes(event.info)) for event in events]
        return 200, {"batch": [info for (info,) in infos]}

    async def terminate(self, request: ApiRequest) -> Told:
        """``POST users/*/terminate_connections``: close the user's connections."""
        return await self._command_connections(request, TERMINATE)

    async def reconnect(self, request: ApiRequest) -> Told:
        """``POST users/*/reconnect_connections``, Legato's own: close them so that they reconnect at once."""
        return await self._command_connections(request, RECONNECT)

    async def _command_connections(self, request: ApiRequest, command: str) -> Told:
        key = Key(request.app.id, users.user_channel(request.names[0]))
        await self._bus.publish([(key, Envelope(b"", command=command))])
        return 200, {}
