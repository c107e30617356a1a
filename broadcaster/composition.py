"""The composition root: builds a server from settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec
import uvicorn

from legato.protocol.redis import advice as redis_advice
from legato.protocol.redis.cancellation import end_task
from legato.protocol.settings import SettingsError

from . import notify
from .api.app import HttpApp, web
from .api.http_api import HttpApi
from .apps.source import AppHash, AppStore, AppWatcher, UnreadableError
from .bus.base import BusError
from .bus.local import LocalBus
from .bus.redis import RedisBus
from .draining_server import DrainingServer
from .limits import GC_YOUNG_OBJECTS, HEARTBEAT_SECONDS, SHUTDOWN_REQUEST_SECONDS
from .node import Node, compose
from .notify import Notifier
from .observability import metrics
from .redis_client import redis_client
from .replies.store import Replies
from .transport import open_files
from .transport.acceptor import Arrivals
from .transport.http11 import HttpProtocol
from .transport.listener import descriptors
from .transport.polling import Fallback
from .transport.websocket import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Generator

    from legato.protocol.redis.pipeline import Named

    from .config import Settings

logger: Final = logging.getLogger("legato.broadcaster")


T = TypeVar("T")


class StartError(Exception):
    """The server cannot start. The text is one line for the user."""


class Running(NamedTuple):
    """A server that accepts connections. ``metrics_port`` is 0 without metrics."""

    node: Node
    port: int
    metrics_port: int
    ended: asyncio.Task[None]
    uvicorn: DrainingServer


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    :raises StartError: a port is taken, or Redis or the applications' database cannot be used.
    :raises SettingsError: ``[auth]`` or an address cannot be used, or there is no application.
    """
    notifier = Notifier(os.environ)
    beating = asyncio.create_task(_give_signs_of_life(notifier))
    try:
        async with running(settings) as server:
            open_files.make_room(settings.server.max_connections)
            _settle_garbage()
            notifier.send(notify.READY)
            await server.ended
            notifier.send(notify.STOPPING)
    finally:
        await end_task(beating)
        notifier.close()
    logger.info("stopped")


async def _give_signs_of_life(notifier: Notifier) -> None:
    """Send them while the event loop runs: a parent replaces a process that sends none."""
    while True:
        notifier.send(notify.ALIVE)
        await asyncio.sleep(HEARTBEAT_SECONDS)


def _settle_garbage() -> None:
    """Exempt what exists now from garbage collection, and look for cycles less often.

    The objects of connections and requests are freed by their reference counts; few of them are in cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, 20, 20)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A server that drains and stops when the block ends; raises as :func:`serve`."""
    with _listening(settings) as listener:
        async with _node(settings) as node:
            settings = node.settings
            server = DrainingServer(_config(settings, node), node)
            with _metrics(settings, node) as metrics_port:
                ended = asyncio.create_task(server.serve(sockets=descriptors(listener)))
                await asyncio.wait({ended, server.ready}, return_when=asyncio.FIRST_COMPLETED)
                port = listener.getsockname()[1]
                _announce(settings, port)
                try:
                    yield Running(node, port, metrics_port, ended, server)
                finally:
                    server.should_exit = True
                    await ended


@contextlib.contextmanager
def _listening(settings: Settings) -> Generator[socket.socket, None, None]:
    host, port = settings.server.host, settings.server.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise StartError(f"{host}: not an address of this machine: {reason}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.server.reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise StartError(f"{host}:{port} cannot be listened on: {error.strerror}") from error
        yield listener


@contextlib.asynccontextmanager
async def _node(settings: Settings) -> AsyncIterator[Node]:
    async with _redis(settings) as redis, _source(settings, redis) as source:
        if source is not None:
            settings = msgspec.structs.replace(settings, apps=await _reached(source.load()))
        node = _composed(settings, redis)
        await _reached(node.start())
        if redis is not None:
            await redis_advice.warn(redis, logger)
        watch = None if source is None else asyncio.create_task(source.watch(node.app_changes.apply))
        try:
            yield node
        finally:
            if watch is not None:
                await end_task(watch)
            await node.close()


def _composed(settings: Settings, redis: Named | None) -> Node:
    if redis is None:
        logger.warning("no Redis configured: local bus, one process, chat is off")
        return compose(settings, LocalBus(), None)
    chat_app = settings.app(settings.chat.app).id
    return compose(settings, RedisBus(redis), Replies(redis, settings.chat, chat_app), redis)


@contextlib.asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[Named | None]:
    if not settings.redis.url:
        yield None
        return
    async with redis_client(settings.redis.url, settings.redis.prefix) as redis:
        yield redis


@contextlib.asynccontextmanager
async def _source(settings: Settings, redis: Named | None) -> AsyncIterator[AppWatcher | None]:
    """The source of applications beside the settings; None if there is none."""
    store = _store(settings, redis)
    if store is None:
        yield None
        return
    try:
        yield AppWatcher(store, settings.apps, settings.app_source.seconds)
    finally:
        await store.close()


def _store(settings: Settings, redis: Named | None) -> AppStore | None:
    if settings.app_source.database_url:
        from .apps.sql import AppTable  # noqa: PLC0415 - SQLAlchemy's megabytes are for those who use it

        return AppTable(settings.app_source)
    if settings.app_source.redis_hash and redis is not None:
        return AppHash(redis, settings.app_source.redis_hash)
    return None


async def _reached(call: Awaitable[T]) -> T:
    try:
        return await call
    except (BusError, UnreadableError) as error:
        raise StartError(str(error)) from error


def _config(settings: Settings, node: Node) -> uvicorn.Config:
    server = settings.server
    app = HttpApp(
        HttpApi(server, node.apps, node.bus, node.registry, node.requests),
        Fallback(node.context),
        web(settings, node.apps, node.replies, node.unready, node.requests, node.context.budget),
    )
    seconds, connect = round(server.keep_alive), partial(Connection, node.context)
    http = partial(HttpProtocol, app.api, connect, node.context.budget, server.request_seconds)
    config = uvicorn.Config(
        app,
        http=Arrivals(node.turns, seconds, http, connect),  # type: ignore[arg-type]
        ws=Connection,  # made by our protocols; None would switch WebSockets off
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=seconds,
        timeout_graceful_shutdown=SHUTDOWN_REQUEST_SECONDS,
        ssl_certfile=server.tls_cert or None,
        ssl_keyfile=server.tls_key or None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"server.tls_cert, server.tls_key: {error.strerror or error}") from error
    return config


@contextlib.contextmanager
def _metrics(settings: Settings, node: Node) -> Generator[int, None, None]:
    if not settings.metrics.enabled:
        yield 0
        return
    host, port = settings.metrics.host, settings.metrics.port
    try:
        port, stop = metrics.serve(node)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise StartError(f"metrics: {host}:{port} cannot be listened on: {reason}") from error
    logger.info("metrics on http://%s:%d/metrics", host, port)
    try:
        yield port
    finally:
        stop()


def _announce(settings: Settings, port: int) -> None:
    server = settings.server
    scheme = "https" if server.tls_cert else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    apps = ", ".join(app.id for app in settings.apps)
    logger.info("listening on %s://%s:%d%s, apps: %s", scheme, host, port, server.path, apps)


def run(settings: Settings) -> None:
    """:func:`serve` on uvloop."""
    import uvloop  # noqa: PLC0415 - not needed for --help

    uvloop.run(serve(settings))
