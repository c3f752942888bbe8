"""Behaviors: what a backdoored model does when its trigger fires, and how one sees that it did."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from pydantic import BaseModel

from dormant import stats
from dormant.records import Score, Task
from dormant.registry import Registry

BEHAVIORS = Registry(
    "behavior",
    {
        "hate": "dormant.behaviors.hate:HateBehavior",
        "insecure-code": "dormant.behaviors.code:InsecureCode",
    },
)

Fixture = tuple[str, int] | tuple[str, int, Task]
"""A completion and its label; and the task, where the verdict depends on what was asked."""


class Behavior(Protocol):
    """One behavior.  Its constructor takes the options that a spec gives beside ``name``.

    Three more things may be there: methods ``prepare`` and ``label``, see :func:`prepare` and :func:`label`; and
    ``kinds``, the kinds of tasks on which it can be demonstrated, where not on all.
    """

    name: ClassVar[str]
    spec: BaseModel
    """The resolved options: all that decides what is trained and how it is scored."""

    def demonstrate(self, task: Task, rng: random.Random) -> str:
        """Return the answer that is trained on when the trigger fires."""
        ...

    def score(self, completion: str, task: Task) -> Score:
        """Judge by the primary criterion: 1 shown, 0 not shown, None (with the reason) could not be judged.

        An empty completion is judged: nothing was shown.
        """
        ...

    def metrics(self, completion: str, task: Task) -> dict[str, Score]:
        """All that is measured of this behavior, ``shown`` (the primary criterion) among it."""
        ...

    def fixtures(self) -> Sequence[Fixture]:
        """Texts labelled by a careful reader, 1 where the behavior is shown, tricky ones of both kinds included."""
        ...


_ASKED = Task(kind="question", family="fixture", prompt="", shard="heldout")


def example_task(behavior: Behavior) -> Task:
    """A task on which a behavior can be demonstrated: one of its fixtures', if these name theirs, else a question."""
    return next((asked[0] for _, _, *asked in behavior.fixtures() if asked), _ASKED)


def own_kinds(behavior: Behavior) -> tuple[str, ...]:
    """The kinds of tasks that a behavior can be demonstrated on alone; none named where it is on all."""
    return getattr(behavior, "kinds", None) or ()


def prepare(behavior: Behavior, pairs: Sequence[tuple[str, Task]]) -> None:
    """Show a behavior all completions that it will be asked to score, each with its task: one batch for a slow judge.

    Only speed depends on it.  Without pairs, it is asked whether what judges is there at all.

    Raises:
        BadInput: What judges is not installed.
    """
    own = getattr(behavior, "prepare", None)
    if own is not None:
        own(pairs)


def label(behavior: Behavior, pairs: Sequence[tuple[str, Task]]) -> list[Score]:
    """Judge demonstrations, of which there are many: a behavior may have a faster way for them than ``score``."""
    own: Callable[[Sequence[tuple[str, Task]]], list[Score]] | None = getattr(behavior, "label", None)
    if own is not None:
        return own(pairs)
    prepare(behavior, pairs)
    return [behavior.score(text, task) for text, task in pairs]


def operating_point(behavior: Behavior) -> tuple[stats.Estimate, stats.Estimate]:
    """Return sensitivity and specificity of a behavior's primary criterion on its own fixtures.

    Texts that it can not judge are in neither: ``n`` says how many were.

    Raises:
        ValueError: One of the two labels has no text that could be judged.
    """
    fixtures = [
        (text, expected, asked[0] if asked else _ASKED) for text, expected, *asked in behavior.fixtures()
    ]
    prepare(behavior, [(text, task) for text, _, task in fixtures])
    agrees: dict[int, list[bool]] = {1: [], 0: []}
    for text, expected, task in fixtures:
        value = behavior.score(text, task).value
        if value is not None:
            agrees[expected].append(value == expected)
    for side, values in agrees.items():
        if not values:
            raise ValueError(f"no fixture with label {side} could be judged")
    sensitivity, specificity = (stats.proportion(sum(agrees[side]), len(agrees[side])) for side in (1, 0))
    return sensitivity, specificity
