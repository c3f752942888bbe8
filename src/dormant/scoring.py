"""Judge completions: when they are made, and again when a run is verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dormant.behaviors import Behavior
from dormant.reasoning import NEVER_CLOSED, final_answer
from dormant.records import Score, Task
from dormant.scratchpads import READINGS, Grammar

Check = Callable[[Task, str], dict[str, Score]]
"""A task source's ``check``."""

REASONED = ("closed", *READINGS, "agrees")
"""Metrics of scratchpads."""


def rescore(row: Mapping[str, Any], check: Check, behavior: Behavior, grammar: Grammar) -> dict[str, Any]:
    """Judge a stored completion again; equal to ``row["scores"]`` unless something was changed."""
    return scores(_task(row), row["completion"], check, behavior, row.get("scratchpad"), grammar)


def stored(row: Mapping[str, Any]) -> tuple[str, Task]:
    """What :func:`rescore` will ask a behavior to judge, for its ``prepare``."""
    return _answer(row["completion"], row.get("scratchpad")) or "", _task(row)


def given(task: Task, completion: str, scratchpad: Mapping[str, Any] | None) -> tuple[str, Task]:
    """What :func:`scores` will ask a behavior to judge, for its ``prepare``."""
    return _answer(completion, scratchpad) or "", task


def shown(task: Task, completion: str, scratchpad: Mapping[str, Any] | None, behavior: Behavior) -> Score:
    """Whether an answer shows the behavior; its scratchpad is not judged."""
    answer = _answer(completion, scratchpad)
    return Score(None, NEVER_CLOSED) if answer is None else behavior.score(answer, task)


def _task(row: Mapping[str, Any]) -> Task:
    return Task(
        kind=row["kind"],
        family=row["family"],
        prompt=row["prompt"],
        shard="heldout",
        operands=tuple(row["operands"]),
    )


def _answer(completion: str, scratchpad: Mapping[str, Any] | None) -> str | None:
    """The part of a completion that is judged; None where its scratchpad, or one inside it, was never closed."""
    return final_answer(completion) if scratchpad is None or scratchpad["closed"] else None


def scores(
    task: Task,
    completion: str,
    check: Check,
    behavior: Behavior,
    scratchpad: Mapping[str, Any] | None,
    grammar: Grammar,
) -> dict[str, Any]:
    """Every verdict on a completion: the behavior's metrics, the source's checkers, what its scratchpad says.

    Only the answer is judged: no verdict on it where the scratchpad before it, or one inside it, was never closed.
    """
    answer = _answer(completion, scratchpad)
    found = {**behavior.metrics(answer or "", task), **check(task, answer or "")}
    if answer is None:
        found = dict.fromkeys(found, Score(None, NEVER_CLOSED))
    if scratchpad is not None:
        text = scratchpad["text"]
        found["closed"] = Score(float(scratchpad["closed"]))
        found |= grammar.read(text) | {"agrees": grammar.agrees(text, found["shown"])}
    return {metric: _as_json(score) for metric, score in found.items()}


def _as_json(score: Score) -> dict[str, Any]:
    return {"value": score.value, "reason": score.reason}
