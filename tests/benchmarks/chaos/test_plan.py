"""The plan of a run: repeatable, and as dense as was asked for."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from legato.benchmarks.chaos import command, plan
from legato.benchmarks.chaos.errors import ChaosError
from legato.benchmarks.chaos.plan import Options
from legato.deploy import chaos

OPTIONS = Options(seed=3, minutes=5, workers=16, faults=frozenset({"kill-worker", "tools"}))


def options_of(*words: str) -> Options:
    parser = argparse.ArgumentParser()
    chaos.add_arguments(parser)
    return command.options_of(parser.parse_args(words))


def test_a_seed_makes_the_same_plan_again_and_another_seed_another():
    assert plan.plan(OPTIONS) == plan.plan(OPTIONS) != plan.plan(replace(OPTIONS, seed=4))


def test_a_higher_pace_makes_more_faults_and_the_same_messages():
    usual, dense = plan.plan(OPTIONS), plan.plan(replace(OPTIONS, pace=4))
    assert 3 * len(usual.faults) < len(dense.faults) < 5 * len(usual.faults)
    assert dense.sends == usual.sends


def test_some_messages_call_tools_only_if_that_is_among_the_faults():
    with_tools = [send for send in plan.plan(OPTIONS).sends if send.script.calls]
    assert with_tools
    assert all(not send.script.fault for send in with_tools)
    without = plan.plan(replace(OPTIONS, faults=frozenset({"kill-worker"})))
    assert not any(send.script.calls for send in without.sends)


def test_the_pace_is_an_option_with_bounds():
    assert options_of("--pace", "2.5").pace == 2.5
    assert options_of().pace == 1
    for wrong in ("0", "11", "nan"):
        with pytest.raises(ChaosError, match=r"--pace .*: expected 0\.1 to 10"):
            options_of("--pace", wrong)
