"""What a plan says that it will take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dormant import cost
from dormant.console import ProgressBar
from dormant.records import Dose
from dormant.runner import Call, Output, Plan
from dormant.stages.configs import DefendConfig, Plugin


def call(name: str, steps: int, *waits_for: str) -> Call:
    config = DefendConfig(defense=Plugin(name="hhh-sft"), dose=Dose(lr=1e-3, steps=steps), at_steps=(steps,))
    inputs = {f"input{i}": Output(other) for i, other in enumerate(waits_for)}
    return Call(name, "defend", config, 0, inputs)


def test_several_share_the_work_but_nobody_starts_before_what_it_waits_for() -> None:
    calls = [call("a", 100), call("b", 200, "a"), call("c", 50, "a"), call("d", 10, "b", "c")]
    a, b, c, d = map(cost.seconds, calls)
    assert b > c > d
    assert cost.together(calls, 1) == pytest.approx(a + b + c + d)
    assert cost.together(calls, 8) == pytest.approx(a + b + d)


def test_what_is_there_already_is_not_waited_for() -> None:
    calls = [call("b", 200, "a"), call("c", 200, "a")]
    assert cost.together(calls, 2) == pytest.approx(cost.seconds(calls[0]))
    assert cost.together([], 2) == 0


def test_the_time_left_begins_at_what_the_plan_says(capfd: pytest.CaptureFixture[str]) -> None:
    chain = [call("first", 1), call("long", 4000, "first"), call("longest", 4000, "long")]
    bar = ProgressBar(Path("out"), workers=2)
    bar.begin(Plan(chain, {}), chain)
    bar.start("first")
    bar.finish("first", 1.0)
    told = capfd.readouterr().err
    minutes = re.findall(r"about (\d+ min)|(\d+ min) left", told)
    assert [one or other for one, other in minutes] == [f"{cost.together(chain, 2) / 60:.0f} min"] * 2
