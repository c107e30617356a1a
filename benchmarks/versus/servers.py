"""Starts the servers to compare, all at once and on one core."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from legato.benchmarks.errors import BAD_USAGE, BenchmarkError
from legato.benchmarks.load import local
from legato.benchmarks.load.orders import LoadTarget
from legato.benchmarks.load.targets import DIALECTS
from legato.benchmarks.stage import Cast, stage, start
from legato.deploy import ports

from .contestants import BASELINE, LEGATO, OVER_REDIS, SOKETI, RunningServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

HOST: Final = "127.0.0.1"
SOURCE: Final = Path(__file__).parents[1] / "baseline" / "server.c"

_PORT: Final = re.compile(r"^(\d+)$", re.MULTILINE)
_RUNNING: Final = re.compile(r"Server is up and running")


class Programs(NamedTuple):
    """What to run. ``soketi``: the script that starts it; None to leave it out."""

    redis: str
    baseline: Path
    soketi: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """Pids of the servers."""
        return (LEGATO, OVER_REDIS, BASELINE, *((SOKETI,) if self.soketi else ()))


async def compiled(directory: Path) -> Path:
    """Compile the baseline into ``directory``; returns the program.

    :raises BenchmarkError: there is no C compiler, or it does not compile.
    """
    if shutil.which("cc") is None:
        raise BenchmarkError("the baseline needs a C compiler, and there is no cc (Debian: gcc, libc6-dev)")
    program = directory / "baseline"
    compiler = await asyncio.create_subprocess_exec(
        *("cc", "-O2", "-o", str(program), str(SOURCE)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await compiler.communicate()
    if compiler.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise BenchmarkError(f"the baseline does not compile: {lines[0] if lines else 'cc says nothing'}")
    return program


def soketi_script(directory: str) -> Path | None:
    """The script that starts the soketi that npm installed in ``directory``; None without a directory.

    :raises BenchmarkError: it is not there, or there is no Node.js.
    """
    if not directory:
        return None
    script = Path(directory).resolve() / "node_modules" / "@soketi" / "soketi" / "bin" / "server.js"
    if not script.is_file():
        raise BenchmarkError(f"--soketi {directory}: npm has not put @soketi/soketi there", BAD_USAGE)
    if shutil.which("node") is None:
        raise BenchmarkError("--soketi needs node, and there is none on the PATH", BAD_USAGE)
    return script


async def versions(programs: Programs) -> dict[str, str]:
    """Versions of the programs that are not Legato's."""
    found = {"cc": await _first_line("cc", "--version")}
    if programs.soketi:
        package = programs.soketi.parents[1] / "package.json"
        found["soketi"] = json.loads(package.read_text(encoding="utf-8"))["version"]
        found["node"] = await _first_line("node", "--version")
    return found


async def _first_line(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode(errors="replace").partition("\n")[0]


@asynccontextmanager
async def servers(
    programs: Programs, names: Collection[str], cores: Mapping[str, Sequence[int]]
) -> AsyncIterator[dict[str, RunningServer]]:
    """Start those of ``names`` that are installed, pinned to the servers' core, and Redis on the other cores.

    :raises BenchmarkError: one does not become ready.
    """
    async with AsyncExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="legato-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(place))
        found = {}
        for name in programs.names:
            if name in names:
                found[name] = await _begun(stack, directory, programs, name)
        if cores:
            for server in found.values():
                for pids, kept in ((server.pids, cores["server"]), (server.redis, cores["generators"])):
                    for pid in pids:
                        local.keep(pid, kept)
        yield found


async def _begun(stack: AsyncExitStack, directory: Path, programs: Programs, name: str) -> RunningServer:
    if name == BASELINE:
        pid, said = await start(stack, directory, "baseline", [str(programs.baseline), "0"], {}, _PORT)
        where = (HOST, int(said[1]))
        return RunningServer(name, LoadTarget(name, *where, *where, "1", "key", "secret"), [pid])
    if name == SOKETI:
        return await _soketi(stack, directory, programs)
    alone = name == LEGATO
    on = await stack.enter_async_context(stage(programs.redis, Cast(config=local.CONFIG, alone=alone)))
    target = local.legato(on, over_redis=not alone)
    of_redis = [] if alone else [on.pids["redis"]]
    return RunningServer(name, target, [on.pids["broadcaster"]], of_redis, on.metrics[0])


async def _soketi(stack: AsyncExitStack, directory: Path, programs: Programs) -> RunningServer:
    """Run soketi with its default application."""
    port, usual = ports.any_free(HOST), DIALECTS[SOKETI]
    settings = {
        "SOKETI_HOST": HOST,
        "SOKETI_PORT": str(port),
        "SOKETI_PRESENCE_MAX_MEMBERS": "20000",
        "SOKETI_METRICS_ENABLED": "0",
    }
    command = ["node", str(programs.soketi), "start"]
    pid, _ = await start(stack, directory, SOKETI, command, settings, _RUNNING)
    where = (HOST, port)
    return RunningServer(SOKETI, LoadTarget(SOKETI, *where, *where, usual.id, usual.key, usual.secret), [pid])
