"""What is used of uvicorn is there. Most of it is not documented; a new uvicorn may lack some of it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from legato.broadcaster.composition import running
from tests.broadcaster.conftest import local_settings

ROOT = Path(__file__).parents[3]

SERVER = ("on_tick", "serve", "shutdown", "startup", "capture_signals")
"""Methods that ours extends or calls."""

OF_A_SERVER = ("config", "force_exit", "lifespan", "server_state", "servers", "should_exit")
OF_A_STATE = ("connections", "default_headers", "tasks")
OF_A_CONFIG = (
    *("asgi_version", "http_protocol_class", "load", "loaded_app", "lifespan_class", "ssl"),
    "timeout_keep_alive",
)

OPTIONS = {
    *("access_log", "backlog", "http", "lifespan", "log_config", "log_level", "server_header"),
    *("ssl_certfile", "ssl_keyfile", "timeout_graceful_shutdown", "timeout_keep_alive", "ws"),
}
"""Of :class:`uvicorn.Config`."""


def missing(things: list[tuple[object, tuple[str, ...]]]) -> list[str]:
    """As ``Class.attribute``."""
    return [
        f"{thing.__name__ if isinstance(thing, type) else type(thing).__name__}.{name}"
        for thing, names in things
        for name in names
        if not hasattr(thing, name)
    ]


async def test_this_uvicorn_has_everything():
    async with running(local_settings()) as started:
        server = started.uvicorn
        things = [
            (uvicorn.Server, SERVER),
            (server, OF_A_SERVER),
            (server.server_state, OF_A_STATE),
            (server.config, OF_A_CONFIG),
            (server.lifespan, ("state",)),
        ]
        assert missing(things) == []
    assert set(inspect.signature(uvicorn.Config).parameters) >= OPTIONS


def test_what_is_gone_is_named():
    assert missing([(ServerState(), ("connections", "gone")), (uvicorn.Server, ("lost",))]) == [
        "ServerState.gone",
        "Server.lost",
    ]


def test_nothing_below_the_server_is_used():
    """``uvicorn.protocols`` is its own business."""
    used = {}
    for program in ("broadcaster", "worker", "protocol", "deploy", "benchmarks"):
        for file in (ROOT / program).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "uvicorn":
                    used[node.module] = file
                elif isinstance(node, ast.Import):
                    used |= {one.name: file for one in node.names if one.name.split(".")[0] == "uvicorn"}
    assert used
    assert set(used) <= {"uvicorn", "uvicorn.server"}, used
