"""Runs the readers, one Node.js process with many stock pusher-js clients, and reads their record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ChaosError
from .record import (
    Came,
    Disconnected,
    Frame,
    Members,
    Read,
    ReaderRecord,
    Subscribed,
    SubscribeSent,
    Visitor,
    Went,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from .record import Entry

PROGRAM: Final = Path(__file__).with_name("readers.mjs")
READY_SECONDS: Final = 60.0

ROOM: Final = "presence-room"
"""The presence channel of all clients."""


class Readers:
    """Sends commands to the readers and receives their progress; see ``readers.mjs``."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "readers.jsonl"
        self._errors = directory / "readers.log"
        self._people: Sequence[Mapping[str, Any]] = ()
        self._guests: Sequence[Mapping[str, Any]] = ()
        self._process: asyncio.subprocess.Process | None = None

    async def start(
        self,
        modules: Path,
        key: str,
        people: Sequence[Mapping[str, Any]],
        guests: Sequence[Mapping[str, Any]],
    ) -> None:
        """Start, and wait until all have subscribed.

        :raises ChaosError: Node.js is missing, or a reader cannot subscribe.
        """
        node = shutil.which("node")
        if node is None:
            raise ChaosError("node is not on the PATH; Node.js 20 or newer is needed for the readers")
        self._people, self._guests = people, guests
        self.log.touch()
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                node,
                str(PROGRAM),
                process_group=0,  # Ctrl-C is for this process, which ends the others
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        settings = {"modules": str(modules), "key": key, "log": str(self.log), "room": ROOM}
        self._write(settings | {"people": list(people), "guests": list(guests)})
        if not await self.reached("ready", READY_SECONDS):
            raise ChaosError("the readers cannot subscribe")

    def tell(self, command: str, **more: Any) -> None:
        """Send a command."""
        self._write({"command": command, **more})

    def _write(self, line: Any) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(f"{json.dumps(line)}\n".encode())

    async def reached(self, fact: str, seconds: float) -> bool:
        """Whether the readers get to ``fact`` in time.

        :raises ChaosError: they have ended.
        """
        assert self._process is not None  # noqa: S101 - it has been started
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            return False
        if not line:
            last = self._errors.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise ChaosError(f"the readers' process has ended: {''.join(last)}")
        return bool(json.loads(line) == fact)

    async def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._process.wait()
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def record(self) -> list[ReaderRecord]:
        """The records of all readers."""
        entries: dict[str, list[Entry]] = {person["name"]: [] for person in (*self._people, *self._guests)}
        for fact in self._facts():
            entries[fact["reader"]] += _entry(fact)
        return [
            ReaderRecord(person["name"], person["user"], person["node"], entries[person["name"]])
            for person in self._people
        ]

    def visitors(self, staying: Collection[str]) -> list[Visitor]:
        """The visits of all clients: the readers, who stay, and the guests, of whom only ``staying`` do."""
        clients = (*self._people, *self._guests)
        entries: dict[str, list[SubscribeSent | Came | Went | Members]] = {
            client["name"]: [] for client in clients
        }
        for fact in self._facts():
            match fact["kind"]:
                case "asked":
                    entries[fact["reader"]].append(SubscribeSent(fact["at"], fact["channel"]))
                case "came":
                    entries[fact["reader"]].append(Came(fact["at"], fact["channel"]))
                case "went":
                    entries[fact["reader"]].append(Went(fact["at"], fact["channel"]))
                case "members":
                    entries[fact["reader"]].append(Members(fact["at"], frozenset(fact["ids"])))
        stays = {person["name"] for person in self._people} | set(staying)
        return [
            Visitor(client["name"], client["user"], client["name"] in stays, entries[client["name"]])
            for client in clients
        ]

    def _facts(self) -> Iterator[Mapping[str, Any]]:
        with self.log.open(encoding="utf-8") as log:
            for line in log:
                if line.endswith("\n"):  # otherwise incomplete
                    yield json.loads(line)


def _entry(fact: Mapping[str, Any]) -> Iterable[Entry]:
    """The entry that a line is about; none for lines that only people need."""
    at: float = fact["at"]
    match fact["kind"]:
        case "subscribed":
            yield Subscribed(at)
        case "closed":
            yield Disconnected(at)
        case "frame":
            yield Frame(at, fact["event"], fact.get("data"))
        case "read":
            yield Read(at, fact["id"], fact["body"])
