"""Help and mistakes of the command line, in this process."""

from __future__ import annotations

import pytest

from legato.deploy import cli


def out(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize("words", [[], ["broadcaster"], ["worker", "dead", "retry"]])
def test_help_is_what_the_option_shows(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = out(capsys, "help", *words)
    assert shown == out(capsys, *words, "--help")
    assert shown[0] == 0
    assert " ".join(["usage: legato", *words]) in shown[1]


@pytest.mark.parametrize(
    ("argv", "usage", "line"),
    [
        ("broadcaster --prot 9000", "broadcaster", "unrecognized arguments: --prot; did you mean --port?"),
        ("broadcaster --prot=9", "broadcaster", "unrecognized arguments: --prot=9; did you mean --port?"),
        ("worker --procesess 4", "worker", "unrecognized arguments: --procesess; did you mean --processes?"),
        ("worker status --jsn", "worker status", "unrecognized arguments: --jsn; did you mean --json?"),
        ("broadcaster --wobble", "broadcaster", "unrecognized arguments: --wobble"),
        ("broadcaster extra", "broadcaster", "unrecognized arguments: extra"),
        ("help --prot", "help", "unrecognized arguments: --prot"),
    ],
)
def test_unknown_option_shows_usage_of_its_command(
    argv: str, usage: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = out(capsys, *argv.split())
    assert status == 2
    assert err.startswith(f"usage: legato {usage} ")
    assert err.endswith(f"legato {usage}: error: {line}\n")


def test_mistyped_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "brodcaster")[2].endswith("; did you mean broadcaster?\n")
    assert out(capsys, "worker", "stauts")[2].endswith("; did you mean status?\n")
    assert "did you mean" not in out(capsys, "help", "sing")[2]


def test_what_argparse_takes_is_still_taken() -> None:
    parse = cli.build_parser(cli.COMMANDS).parse_args
    assert parse(["worker", "--conc", "3"]).concurrency == 3
    assert parse(["worker", "dead", "retry", "--all", "--", "1-1"]).ids == ["1-1"]
