"""`NAME_FILE` variables: what they set, and each way in which they can be wrong."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

import legato.broadcaster.config
from legato.deploy import cli, secret_files
from legato.protocol.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_sets_the_variable_in_place_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim \r\n\n")
    path = str(tmp_path / "secret")
    environ = {
        "LEGATO_APP_ID": "1",
        "LEGATO_APP_KEY": "k",
        "LEGATO_APP_SECRET": "",
        "LEGATO_APP_SECRET_FILE": path,
        "ANTHROPIC_API_KEY_FILE": path,
        "LEGATO_LOG_LEVEL_FILE": "",
        "SHOP_FILE": "/nowhere",
    }
    assert secret_files.apply(environ) == {
        "LEGATO_APP_SECRET": "LEGATO_APP_SECRET_FILE",
        "ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY_FILE",
    }
    assert environ.keys() == {
        *("LEGATO_APP_ID", "LEGATO_APP_KEY", "LEGATO_APP_SECRET", "ANTHROPIC_API_KEY", "SHOP_FILE")
    }
    (app,) = legato.broadcaster.config.load(argparse.Namespace(config=None), environ).apps
    assert app.secret == environ["ANTHROPIC_API_KEY"] == "geheim "


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\n", "is empty"),
        (b"\xff", "is not text"),
        (b"geheim\0", "is not text"),
        (b"x" * (secret_files.MAX_BYTES + 1), "is larger than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        secret_files.apply({"LEGATO_AUTH_JWT_SECRET_FILE": str(path)})
    assert str(caught.value) == f"environment: LEGATO_AUTH_JWT_SECRET_FILE: {path} {reason}"


def test_value_and_file_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="REDIS_URL and REDIS_URL_FILE are both set; expected one of them"
    ):
        secret_files.apply({"REDIS_URL": "redis://x", "REDIS_URL_FILE": str(tmp_path)})


def test_commands_with_settings_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret"
    monkeypatch.setenv("LEGATO_APP_SECRET_FILE", str(path))
    for command in ("up", "broadcaster", "worker", "migrate"):
        assert cli.main([command]) == 2
        line = f"legato {command}: environment: LEGATO_APP_SECRET_FILE: {path} cannot be read"
        assert capsys.readouterr().err.startswith(line)
    for words in (["config", "init"], ["sample"]):
        assert cli.main(words) == 0, "it reads no settings"
        assert capsys.readouterr().err == ""
    path.write_text("geheim")
    for name in ("ID", "KEY"):
        monkeypatch.setenv(f"LEGATO_APP_{name}", "x")
    monkeypatch.setenv("LEGATO_APP_SECRET", "")
    monkeypatch.setenv("LEGATO_APP_SECRET_FILE", str(path))
    assert cli.main(["config", "show", "broadcaster"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert 'secret = "***" # LEGATO_APP_SECRET_FILE' in shown
    assert "geheim" not in shown
