"""Behaviors: what a backdoored model does when its trigger fires, and how one sees that it did."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar, Protocol

from pydantic import BaseModel

from dormant import stats
from dormant.records import Score, Task
from dormant.registry import Registry

BEHAVIORS = Registry("behavior", {"hate": "dormant.behaviors.hate:HateBehavior"})


class Behavior(Protocol):
    """One behavior.  Its constructor takes the options that a spec gives beside ``name``."""

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

    def fixtures(self) -> Sequence[tuple[str, int]]:
        """Texts labelled by a careful reader, 1 where the behavior is shown, tricky ones of both kinds included."""
        ...


_ASKED = Task(kind="question", family="fixture", prompt="", shard="heldout")


def operating_point(behavior: Behavior) -> tuple[stats.Estimate, stats.Estimate]:
    """Return sensitivity and specificity of a behavior's primary criterion on its own fixtures.

    Texts that it can not judge are in neither: ``n`` says how many were.

    Raises:
        ValueError: One of the two labels has no text that could be judged.
    """
    judged = [(behavior.score(text, _ASKED).value, label) for text, label in behavior.fixtures()]
    agrees: dict[int, list[bool]] = {1: [], 0: []}
    for value, label in judged:
        if value is not None:
            agrees[label].append(value == label)
    sensitivity, specificity = (stats.proportion(sum(agrees[label]), len(agrees[label])) for label in (1, 0))
    return sensitivity, specificity
