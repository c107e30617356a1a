"""Log lines that strangers can cause: the first ones, and how many there were."""

from __future__ import annotations

import logging

import pytest

from legato.deploy import log_rate_limit
from legato.deploy.log_rate_limit import LINES, SECONDS, LogRateLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(
    text: str, *values: object, name: str = "legato.http", level: int = logging.WARNING
) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, values, None)


def written(quiet: LogRateLimit, count: int, *of: object, **more: object) -> list[str]:
    records = [line(*of, **more) for _ in range(count)]  # type: ignore[arg-type]
    return [record.getMessage() for record in records if quiet.filter(record)]


def test_one_kind_is_written_so_often_and_then_counted():
    clock = Clock()
    quiet = LogRateLimit(clock)
    lines = written(quiet, 100, "refused: %d", 400)
    assert lines == ["refused: 400"] * (LINES - 1) + [
        f"refused: 400 (more like it are left out for up to {SECONDS:g} s)"
    ]
    assert written(quiet, 1, "other: %d", 400) == ["other: 400"]
    assert written(quiet, 1, "refused: %d", 400, name="legato.api") == ["refused: 400"]
    clock.now += SECONDS - 1
    assert written(quiet, 1, "refused: %d", 431) == []
    clock.now += 1
    assert written(quiet, 2, "refused: %d", 431) == [
        f"refused: 431 ({101 - LINES} more like it were left out)",
        "refused: 431",
    ]


@pytest.mark.parametrize(
    "more", [{"level": logging.INFO}, {"name": "legato.worker.reply"}, {"name": "legato.refused"}]
)
def test_information_and_the_lines_of_workers_and_of_refusals_are_all_written(more):
    assert len(written(LogRateLimit(Clock()), 100, "x", **more)) == 100


def test_kinds_are_bounded(monkeypatch):
    monkeypatch.setattr(log_rate_limit, "KINDS", 10)
    quiet = LogRateLimit(Clock())
    for number in range(1000):
        assert written(quiet, 1, f"text {number}") == [f"text {number}"]
        assert len(quiet._kinds) <= 10
