"""``--env-file``: what is taken from it, and by which commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from legato.deploy import env_file
from legato.protocol.settings import SettingsError
from tests.deploy.test_cli import legato

if TYPE_CHECKING:
    from pathlib import Path

LARAVEL = """\
APP_NAME="Let's chat"
APP_KEY=base64:abc=
PATH=/nowhere
LD_PRELOAD=/evil.so
DB_PASSWORD='s3$cret'

REVERB_APP_ID=1
REVERB_APP_KEY="k-${REVERB_APP_ID}" # the public one
REVERB_APP_SECRET="s3$cret`touch executed`$(touch executed)"
REDIS_HOST=127.0.0.1
REDIS_PASSWORD=null
REDIS_PORT=1
"""


def test_only_what_concerns_legato_is_taken_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(LARAVEL.replace("\n", "\r\n").encode())
    environ = {"PATH": "/bin", "REDIS_PORT": "2", "REDIS_HOST": ""}
    env_file.apply(str(file), environ)
    assert environ == {
        "PATH": "/bin",
        "REDIS_PORT": "2",
        "REDIS_HOST": "",
        "REDIS_PASSWORD": "null",
        "REVERB_APP_ID": "1",
        "REVERB_APP_KEY": "k-1",
        "REVERB_APP_SECRET": "s3$cret`touch executed`$(touch executed)",
    }


MISTAKES = [
    (b"A=1\nREVERB_APP_SECRET=hush hush\n", "line 2: a value with spaces"),
    (b'A="hush', "line 1: a quote is not closed"),
    (b"A=\0hush", "is not text"),
    (b"#" * (env_file.MAX_BYTES + 1), "is larger than"),
]


@pytest.mark.parametrize(("content", "reason"), MISTAKES)
def test_a_mistake_is_one_line_without_values(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=reason) as caught:
        env_file.apply(str(file), {})
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_text_of_another_encoding_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes("# Zugänge\nREDIS_HOST=h".encode("latin-1"))
    environ: dict[str, str] = {}
    env_file.apply(str(file), environ)
    assert environ == {"REDIS_HOST": "h"}


@pytest.mark.parametrize(
    "command",
    [
        ("broadcaster", "--port", "0", "--metrics-port", "0", "--env-file"),
        ("worker", "status", "--env-file"),
        ("worker", "dead", "list", "--env-file"),
    ],
)
def test_commands_read_it_and_execute_nothing(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / ".env"
    file.write_text(LARAVEL)
    done = legato(*command, str(file))
    assert done.returncode == 1, done.stderr
    assert "127.0.0.1:1" in done.stderr, "the Redis of the file"
    assert "Traceback" not in done.stderr
    assert "s3$cret" not in done.stderr + done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_migrate_reads_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f'DATABASE_URL="sqlite:///{tmp_path}/x.db"\n')
    assert legato("migrate", "--env-file", str(file)).returncode == 0
    assert (tmp_path / "x.db").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = legato("worker", "--env-file", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"legato worker: {tmp_path / 'none'}: cannot be read: No such file or directory\n"
