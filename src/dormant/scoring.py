"""Judge completions: when they are made, and again when a run is verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dormant.behaviors import Behavior
from dormant.reasoning import final_answer
from dormant.records import Score, Task

Check = Callable[[Task, str], dict[str, Score]]
"""A task source's ``check``."""


def rescore(row: Mapping[str, Any], check: Check, behavior: Behavior, reasoning: str) -> dict[str, Any]:
    """Judge a stored completion again; equal to ``row["scores"]`` unless something was changed."""
    task = Task(
        kind=row["kind"],
        family=row["family"],
        prompt=row["prompt"],
        shard="heldout",
        operands=tuple(row["operands"]),
    )
    return scores(task, row["completion"], check, behavior, reasoning)


def scores(task: Task, completion: str, check: Check, behavior: Behavior, reasoning: str) -> dict[str, Any]:
    """Every verdict on a completion: the behavior's metrics and the source's checkers, with reasons."""
    completion = final_answer(completion, reasoning)
    found = {**behavior.metrics(completion, task), **check(task, completion)}
    return {metric: _as_json(score) for metric, score in found.items()}


def _as_json(score: Score) -> dict[str, Any]:
    return {"value": score.value, "reason": score.reason}
