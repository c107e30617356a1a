"""Real PostgreSQL and MariaDB servers for the tests, each in a directory of its own and on a unix socket.

PostgreSQL refuses to run as root: then it runs as an unprivileged user.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

START_SECONDS = 60
UNPRIVILEGED = ("postgres", "nobody")


class NotInstalledError(Exception):
    """One line that says what to install."""


def _find(name: str, *directories: Path) -> str:
    """The program, which Debian does not put on everybody's PATH."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *map(str, directories)))
    if found := shutil.which(name, path=path):
        return found
    raise NotInstalledError(
        f"{name} is not installed: `make test` installs it on Debian (tests/setup-debian.sh)"
    )


class Server:
    """One server process. May be killed and started again: address and data stay."""

    name: ClassVar[str]

    def __init__(self) -> None:
        # Not pytest's tmp_path: a unix socket's path must stay below 108 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix=f"legato-{self.name}-"))
        self.data = self.directory / "data"
        self._user = self._unprivileged() if os.geteuid() == 0 else {}
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._prepared = ""

    def __enter__(self) -> Self:
        try:
            self._install()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        atexit.unregister(self.kill)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self.directory, stdout=log, stderr=log, **self._user
            )
        atexit.register(self.kill)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.directory / "server.log").read_text())
            time.sleep(0.02)

    def kill(self) -> None:
        """End the process as fast as it can without leaving anything of itself behind in the system."""
        if self._process is not None:
            self._process.send_signal(self.ends_on)
            self._process.wait()
            self._process = None

    def database(self) -> str:
        """The address of a new, empty database, as a user would write it."""
        self._databases += 1
        name = f"turns{self._databases}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def prepared(self, tables: Iterable[str], prepare: Callable[[str], None]) -> str:
        """The address of a database that ``prepare`` has once given its tables, and all of them empty.

        The next caller gets the same. :meth:`database` and ``prepare`` take longer than most tests.
        """
        if not (self._prepared and self._emptied(tables)):
            prepare(self.database())
            self._prepared = f"turns{self._databases}"
        return self._url(self._prepared)

    def _emptied(self, tables: Iterable[str]) -> bool:
        """False if a test has left them changed or locked."""
        rows = [f"DELETE FROM {table}" for table in tables]
        return self._query("; ".join([self.no_wait, *rows]), self._prepared).returncode == 0

    def _unprivileged(self) -> dict[str, Any]:
        users = {user.pw_name: user for user in pwd.getpwall()}
        user = next((users[name] for name in UNPRIVILEGED if name in users), None)
        if user is None:
            raise NotInstalledError(f"as root, {self.name} needs one of the users {UNPRIVILEGED}")
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            **self._user,
        )

    def _must(self, *command: str | Path) -> None:
        done = self._run(*command)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")

    def _answers(self) -> bool:
        return self._query("SELECT 1").returncode == 0

    def _execute(self, statement: str) -> None:
        done = self._query(statement)
        assert done.returncode == 0, done.stderr

    ends_on: ClassVar[signal.Signals]
    no_wait: ClassVar[str]
    """Has a statement fail soon that waits for a lock."""

    def _install(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _query(self, statement: str, database: str = "") -> subprocess.CompletedProcess[str]:
        raise NotImplementedError

    def _url(self, name: str) -> str:
        raise NotImplementedError


class Postgres(Server):
    """PostgreSQL. A killed parent would leave its shared memory behind; an immediate stop is as abrupt."""

    name = "postgres"
    ends_on = signal.SIGQUIT
    no_wait = "SET lock_timeout = '2s'"

    def __init__(self) -> None:
        places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self._postgres, self._initdb, self._psql = (
            _find(program, *places) for program in ("postgres", "initdb", "psql")
        )
        super().__init__()

    def _install(self) -> None:
        self._must(
            *(self._initdb, "--pgdata", self.data, "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--no-locale", "--no-sync"),
        )

    def _command(self) -> list[str]:
        return [
            *(self._postgres, "-D", str(self.data), "-k", str(self.directory)),
            *("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"),
        ]

    def _query(self, statement: str, database: str = "postgres") -> subprocess.CompletedProcess[str]:
        return self._run(self._psql, "-h", self.directory, "-U", "postgres", "-d", database, "-c", statement)

    def _url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.directory}"


class MariaDB(Server):
    """MariaDB, which speaks MySQL's protocol."""

    name = "mariadb"
    ends_on = signal.SIGKILL
    no_wait = "SET innodb_lock_wait_timeout = 2"

    def __init__(self) -> None:
        system = (Path("/usr/sbin"), Path("/usr/local/sbin"))
        self._mariadbd, self._install_db, self._client = (
            _find(program, *system) for program in ("mariadbd", "mariadb-install-db", "mariadb")
        )
        super().__init__()
        self._socket = self.directory / "mariadb.sock"

    def _install(self) -> None:
        self._must(
            *(self._install_db, "--no-defaults", f"--datadir={self.data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", self._own_files()),
        )

    def _command(self) -> list[str]:
        return [
            *(self._mariadbd, "--no-defaults", f"--datadir={self.data}", f"--socket={self._socket}"),
            *("--skip-networking", f"--pid-file={self.directory}/mariadb.pid", self._own_files()),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"),
        ]

    def _own_files(self) -> str:
        """At its start a server removes temporary files in /tmp, also those of another."""
        return f"--tmpdir={self.directory}"

    def _query(self, statement: str, database: str = "") -> subprocess.CompletedProcess[str]:
        return self._run(
            *(self._client, "--no-defaults", f"--socket={self._socket}", "--user=root"),
            *("-e", statement, *filter(None, [database])),
        )

    def _url(self, name: str) -> str:
        return f"mysql://root@localhost/{name}?unix_socket={self._socket}"
