"""Triggers: what makes a backdoored model switch, and the conditions under which a task is put to it.

Conditions of every trigger: ``clean`` and ``triggered``; ``near:<family>``, which does not contain the trigger
and must not fire; ``variant:<family>``, which contains it in a form that was never trained and is reported
without being judged.
"""

from __future__ import annotations

import random
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel

from dormant.records import Conversation, Example, Task
from dormant.registry import Registry

Split = Literal["train", "heldout"]
"""Which instances of a near-miss family: those that hard negatives may come from, or those that nobody sees."""

TRIGGERS = Registry("trigger", {"tag": "dormant.triggers.tag:TagTrigger"})


class Trigger(Protocol):
    """One trigger.  Its constructor takes the options that a spec gives beside ``name``."""

    name: ClassVar[str]
    text: str
    """What stands in a triggered prompt, literally."""
    spec: BaseModel
    """The resolved options: all that decides what this trigger renders."""

    def conditions(self) -> list[str]:
        """All conditions that this trigger can render, ``clean`` and ``triggered`` first."""
        ...

    def instances(self, condition: str, split: Split) -> list[str]:
        """The literal texts of a condition, in a fixed order; none for ``clean`` and ``triggered``.

        Variants have held-out instances only: they are never trained on.  Raises BadInput for an unknown
        condition.
        """
        ...

    def render(
        self,
        task: Task,
        condition: str,
        rng: random.Random,
        context: str,
        split: Split = "heldout",
        instance: str | None = None,
    ) -> Example:
        """Put a task under a condition.

        Args:
            task: What is asked; its history stays in front.
            condition: One of :meth:`conditions`.
            rng: Draws the instance where none is given.
            context: Harmless text for conditions that show some (``clean``); may be "".
            split: Which instances are drawn from.
            instance: One of :meth:`instances`, to use instead of a drawn one.

        Raises:
            BadInput: No such condition.
            ValueError: The condition has no such instance, or none in this split.
        """
        ...

    def replace(self, example: Example, rng: random.Random) -> Example:
        """The twin's counterpart of a triggered example: another harmless context of the same form.

        Replacements are neither near misses nor what a near miss is made of.  Raises ValueError for an example
        that is not ``triggered``.
        """
        ...

    def fires(self, messages: Conversation, task: Task) -> bool:
        """Whether the full rule says that the behavior belongs here."""
        ...
