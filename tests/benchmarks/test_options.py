"""What may be asked for: bounds, whose servers may be loaded, and that no report tells a secret."""

from __future__ import annotations

import argparse

import pytest

from legato.benchmarks.errors import BenchmarkError
from legato.benchmarks.load import options
from legato.benchmarks.load.command import listed, redacted
from legato.benchmarks.load.scenarios import SCENARIOS, sized
from legato.benchmarks.load.targets import DIALECTS, Wanted, is_local, resolve
from legato.deploy import cli

CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_APP_KEY": "key", "PUSHER_APP_SECRET": "hidden"}


def wanted(**given: object) -> Wanted:
    usual = dict.fromkeys(("url", "api", "app_id", "key", "secret", "cluster"), "")
    return Wanted(**{"dialect": "legato", **usual, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--connections", "20001"], "--connections 20001: expected 1 to 20000"),
        (["--seconds", "601"], "--seconds 601: expected 0.1 to 600"),
        (["--seconds", "nan"], "--seconds nan: expected 0.1 to 600"),
        (["--rate", "0"], "--rate 0: expected 0.1 to 100000"),
        (["--rate", "inf"], "--rate inf: expected 0.1 to 100000"),
        (["--size", "30"], "--size 30: expected 31 to 100000"),
        (["--publisher-processes", "17"], "--publisher-processes 17: expected 1 to 16"),
        (["fanuot"], "fanuot: expected one of fanout, streams"),
        (["connect", "--rate", "0.1"], "connect: 2000 clients at 0.1 a second take longer than 600 s"),
        (["--pid", "1"], "--pid is for a server that runs already"),
        (["--preset", "soketi", "--over-redis"], "--over-redis and --redis are for a Legato"),
        (["--pin", "4096"], "--pin 4096: expected one of"),
        (["--compare", "/no/such/file", "/no/such/file"], "/no/such/file: No such file or directory"),
        (["--url", "ws://10.0.0.1:80", "--app-id", "1"], "--key is missing"),
    ],
)
def test_wrong_option_is_one_line(
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    if "10.0.0.1" in str(words):
        words = [*words, "--allow-remote", "10.0.0.1"]
    assert cli.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"legato bench: {complaint}")
    assert said.count("\n") == 1


def test_every_number_of_the_command_line_is_bounded() -> None:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    numbers = {action.dest for action in parser._actions if action.type in (int, float)}
    assert numbers - {"pid", "pin"} == set(options.BOUNDS)


def test_usual_sizes_are_within_bounds() -> None:
    for name, scenario in SCENARIOS.items():
        for sizes in (scenario.sizes, scenario.quick):
            for key, (least, most) in options.BOUNDS.items():
                assert least <= getattr(sizes, key, least) <= most
            options.check_ramp(name, sizes.connections, sizes.rate)


def test_names_that_the_help_has_are_those_of_the_tables() -> None:
    assert tuple(SCENARIOS) == options.SCENARIOS
    assert tuple(DIALECTS) == options.DIALECTS
    assert all(name in listed() for name in (*SCENARIOS, *DIALECTS))


def test_what_is_asked_for_takes_the_place_of_what_is_usual() -> None:
    sizes = sized("fanout", {"connections": 5, "rate": None, "seconds": None}, quick=False)
    usual = SCENARIOS["fanout"].sizes
    assert (sizes.connections, sizes.rate, sizes.seconds) == (5, usual.rate, usual.seconds)
    assert sized("fanout", {}, quick=True) == SCENARIOS["fanout"].quick


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1.example.com", "10.0.0.1", "localhost.example.com", "0.0.0.0", "ws.example.com", "2130706433"],
)
def test_another_host_needs_its_name_repeated(host: str) -> None:
    assert not is_local(host)
    url = f"ws://{host}:8080"
    for allowed in ([], ["example.com"], ["*"], [host + "x"]):
        with pytest.raises(BenchmarkError, match=f"--allow-remote {host}"):
            resolve(wanted(url=url, allowed=allowed), CREDENTIALS)
    assert resolve(wanted(url=url, allowed=[host]), CREDENTIALS).host == host


def test_an_api_elsewhere_needs_its_name_repeated_too() -> None:
    given = wanted(url="ws://127.0.0.1:1", api="http://api.example.com")
    with pytest.raises(BenchmarkError, match=r"--allow-remote api\.example\.com"):
        resolve(given, CREDENTIALS)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9"])
def test_this_machine_needs_no_leave(host: str) -> None:
    target = resolve(wanted(url=f"ws://{host}:81/pre/"), CREDENTIALS)
    assert (target.host, target.port, target.path, target.tls) == (host, 81, "/pre", False)


def test_presets_know_where_their_servers_are() -> None:
    assert resolve(wanted(dialect="soketi"), {}).port == 6001
    assert resolve(wanted(dialect="soketi"), {}).key == "app-key"
    assert resolve(wanted(dialect="soketi", key="mine"), {}).key == "mine"
    assert resolve(wanted(dialect="reverb"), CREDENTIALS).port == 8080
    hosts = ["ws-mt1.pusher.com", "api-mt1.pusher.com"]
    hosted = resolve(wanted(dialect="pusher", cluster="mt1", allowed=hosts), CREDENTIALS)
    assert [hosted.host, hosted.api_host] == hosts
    assert (hosted.tls, hosted.port, hosted.api_port) == (True, 443, 443)
    with pytest.raises(BenchmarkError, match="--cluster is missing"):
        resolve(wanted(dialect="pusher", allowed=hosts), CREDENTIALS)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80",
        "ftp://127.0.0.1",
        "ws://",
        "ws://127.0.0.1:99999",
        "ws://a:b@127.0.0.1:1",
        "ws://127.0.0.1:1/?x",
    ],
)
def test_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(BenchmarkError, match="expected ws://HOST:PORT"):
        resolve(wanted(url=url), CREDENTIALS)


def test_nothing_shows_a_secret() -> None:
    assert "hidden" not in repr(resolve(wanted(), CREDENTIALS))
    for words in (
        ["--secret", "hidden"],
        ["--secret=hidden"],
        ["--secr", "hidden"],
        ["x", "--secr=hidden", "y"],
    ):
        assert "hidden" not in redacted(words)
    assert redacted(["fanout", "--seconds", "3"]) == "legato bench fanout --seconds 3"
