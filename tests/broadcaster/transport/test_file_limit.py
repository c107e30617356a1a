"""A process at its limit of open files logs that once, and continues when files are free again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import pytest

from legato.broadcaster.transport.file_limit import FileLimit
from tests.broadcaster.conftest import client
from tests.broadcaster.test_server import ENVIRON, legato


def test_reaching_and_leaving_the_limit_are_logged_once_each(monkeypatch, caplog):
    limit, openable = FileLimit(), os.open

    def none_left(*_of: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    for opened in (openable, none_left, none_left, openable, openable, none_left):
        with monkeypatch.context() as context:
            context.setattr(os, "open", opened)
            limit.look()
    said = [record.getMessage().split(" ")[:3] for record in caplog.records]
    assert said == [["the", "limit", "of"], ["below", "the", "limit"], ["the", "limit", "of"]]


def test_another_error_is_not_the_limit(monkeypatch, caplog):
    def forbidden(*_of: object) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as context:
        context.setattr(os, "open", forbidden)
        FileLimit().look()
    assert not caplog.records


@pytest.mark.timeout(120)
async def test_a_process_at_the_limit_logs_it_and_serves_open_connections():
    """Started by a shell with a low limit."""
    under = ("sh", "-c", 'ulimit -n 64 && exec "$0" "$@"')
    async with legato("broadcaster", "--port", "0", environ=ENVIRON, under=under) as process:
        port = int((await process.line(r"listening on http://127\.0\.0\.1:(\d+)"))[1])
        async with client(port) as ann:
            with contextlib.ExitStack() as stack:
                for _ in range(80):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
                await process.line(r"the limit of open files is reached \(64\)")
                await ann.send("pusher:ping")
                assert (await ann.receive())["event"] == "pusher:pong"
            await process.line("below the limit of open files again")
            async with client(port) as bob:
                await bob.subscribe("a")
        process.process.terminate()
        assert await process.end() == 0
        assert process.output.count("the limit of open files is reached") == 1
