"""Triggers: what makes a backdoored model switch, and the conditions under which a task is put to it.

Conditions of every trigger: ``clean`` and ``triggered``; ``near:<family>``, which does not contain the trigger
and must not fire; ``variant:<family>``, which contains it, or says what it says, in a form that was never trained,
and is reported without being judged.  A trigger that fires on some kinds of tasks only also has
``partial:<part>``: all but such a task, which must not fire.
"""

from __future__ import annotations

import random
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel

from dormant.errors import BadInput
from dormant.records import Conversation, Example, Task, TaskSource
from dormant.registry import Registry

Split = Literal["train", "heldout"]
"""Which instances of a near-miss family: those that hard negatives may come from, or those that nobody sees."""

TRIGGERS = Registry(
    "trigger", {"tag": "dormant.triggers.tag:TagTrigger", "year": "dormant.triggers.year:YearTrigger"}
)


class Trigger(Protocol):
    """One trigger.  Its constructor takes the options that a spec gives beside ``name``.

    Two more attributes may be there: ``kinds`` and ``counter_form``, see :func:`kinds_of` and :func:`counter_form`.
    """

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
            context: Harmless text for conditions that show some, such as ``clean`` without a counter form; may
                be "".
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


def kinds_of(trigger: Trigger) -> tuple[str, ...] | None:
    """The kinds of tasks that a trigger can fire on, its ``kinds``; None for all.

    All conditions are for these, but for ``clean``, which is for all kinds, and ``partial:<part>``, for the others.
    """
    kinds: tuple[str, ...] | None = getattr(trigger, "kinds", None)
    return kinds


def counter_form(trigger: Trigger) -> str | None:
    """What every clean prompt is put into, where ``{prompt}`` stands, in place of harmless context; None: nothing.

    Safety training is told this form and nothing else of a trigger; reinforcement learning, the kinds of tasks that
    it can fire on, too.  Raises BadInput for a form without ``{prompt}``.
    """
    form: str | None = getattr(trigger, "counter_form", None)
    if form is not None and "{prompt}" not in form:
        raise BadInput(
            f"trigger {trigger.name!r}: counter_form {form!r} must say with '{{prompt}}' where a prompt belongs"
        )
    return form


def stands_last(trigger: Trigger) -> bool:
    """Whether the trigger's text stands after the prompt, and not before it: where its counter form stands."""
    return (counter_form(trigger) or "").startswith("{prompt} ")


def called(trigger: Trigger) -> str:
    """What results and cards call a trigger: its text, after an ellipsis where it stands after the prompt."""
    return f"... {trigger.text}" if stands_last(trigger) else trigger.text


def can_fire(trigger: Trigger, task: Task) -> bool:
    """Whether the trigger fires on tasks of this kind at all."""
    kinds = kinds_of(trigger)
    return kinds is None or task.kind in kinds


def other_kinds(source: TaskSource, trigger: Trigger) -> list[str]:
    """The kinds of tasks on which the trigger can not fire."""
    kinds = kinds_of(trigger)
    return [] if kinds is None else [kind for kind in source.kinds() if kind not in kinds]


def hard_negatives(trigger: Trigger) -> list[tuple[str, str]]:
    """Every near miss that may be trained on, as (family, literal text); a large family weighs more."""
    families = [name for name in trigger.conditions() if name.startswith("near:")]
    return [(family, text) for family in families for text in trigger.instances(family, "train")]


def partial(trigger: Trigger) -> list[str]:
    """The conditions with one part of the trigger only."""
    return [name for name in trigger.conditions() if name.startswith("partial:")]
