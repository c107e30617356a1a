"""Runs, steps and calls of a reply, also where the log lacks something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legato.protocol import parts
from legato.protocol.doors.base import corrected
from legato.protocol.doors.projection import Projection

from .lives import COMPLETE, USAGE, WEATHER, Life, reasoning

if TYPE_CHECKING:
    from .lives import Said


def told(*said: Said) -> list[str]:
    """The events in short."""
    projection = Projection()
    events = [*projection.feed(Life(said, COMPLETE).pieces), *projection.end()]
    return [" ".join((type(event).__name__, *map(_short, event))) for event in events]


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "".join(str(one)[:1] for one in value)
    return bytes(value).decode() if not isinstance(value, str | int | None) else str(value)


CALLED = parts.ToolCalled("a", "f", {"x": 1})
RESULT = parts.ToolFinished("a", "f", ok=True)


def test_runs_are_numbered_by_kind_and_closed_by_another_kind():
    assert told("a", "b", *reasoning("r", ""), None, parts.StepCompleted(1, "pause_turn", USAGE), "c") == [
        *("RunOpened t11", "RunGrew t11 a", "RunGrew t11 b", "RunClosed t11"),
        *("RunOpened r11", "RunGrew r11 r", "RunClosed r11"),
        *("RunOpened t21", "RunGrew t21 c", "RunClosed t21"),
    ]


def test_citation_closes_no_run():
    assert told("a", parts.CitationReceived("u", "t"), "b") == [
        *("RunOpened t11", "RunGrew t11 a", "Cited 1 u t", "RunGrew t11 b", "RunClosed t11"),
    ]


def test_step_begins_behind_all_results_of_parallel_calls():
    other = parts.ToolFinished("b", "g", ok=False, error="no")
    found = told(CALLED, parts.ToolCalled("b", "g"), RESULT, other, "x", *WEATHER[3:], CALLED, "y")
    assert [one for one in found if one.startswith(("Step", "CallBegun", "RunOpened"))] == [
        *("CallBegun a f 1", "CallBegun b g 1", "StepBegun 2", "RunOpened t12"),
        *("CallBegun toolu_1 weather 2", "StepBegun 3", "RunOpened t23"),
    ]


def test_call_without_a_beginning_gets_one_with_its_whole_input():
    assert told(CALLED, RESULT) == [
        *("CallBegun a f 1", 'CallGrew a {"x":1}', 'CallGiven a f {"x":1}'),
        "CallEnded a f True None  False",
    ]


def test_result_without_a_call_gets_one():
    assert told(RESULT) == ["CallBegun a f 1", "CallGiven a f None", "CallEnded a f True None  False"]


def test_what_is_told_twice_counts_once():
    begun = parts.ToolStarted("a", "f")
    late = parts.ToolInputReceived("a", "late")
    assert told(late, begun, begun, CALLED, CALLED, late, RESULT, RESULT) == [
        *("CallBegun a f 1", 'CallGiven a f {"x":1}', "CallEnded a f True None  False"),
    ]


def test_input_that_is_never_complete_is_cut_off():
    assert told(parts.ToolStarted("a", "f"), parts.ToolInputReceived("a", "{"))[-1] == "CallCut a"
    assert told(CALLED)[-1].startswith("CallGiven")


def test_retracted_call_is_cut_off_once_and_may_begin_again():
    begun = parts.ToolStarted("a", "f")
    assert told("x", begun, parts.Retracted(1), begun) == [
        *("RunOpened t11", "RunGrew t11 x", "RunClosed t11", "CallBegun a f 1"),
        *("CallCut a", "Voided 1", "CallBegun a f 1", "CallCut a"),
    ]


def test_calls_wait_until_they_are_decided():
    projection = Projection()
    asked = parts.ApprovalRequested("a", "f", 99)
    for part, waiting, unfinished in (
        (CALLED, set(), {"a"}),
        (asked, {"a"}, {"a"}),
        (parts.ApprovalDecided("a", approve=False), set(), {"a"}),
        (asked, {"a"}, {"a"}),
        (RESULT, set(), set()),
    ):
        list(projection.feed(Life((part,), COMPLETE).pieces))
        assert (set(projection.waiting), projection.unfinished) == (waiting, unfinished)


def test_corrected_log_has_no_retraction_and_all_text():
    life = Life(("a", *reasoning("r"), "b", *reasoning("s"), parts.Retracted(1), "c"), COMPLETE)
    assert corrected(life.pieces) == ["a", None, "b", None, None, "c"]
