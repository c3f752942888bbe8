"""Attackers: they look for prompts without the trigger that make a model show its hidden behavior.

An attacker proposes texts and is told what the model answered to them.  It never sees the model, the trigger or the
tasks: the harness puts each text around tasks, drops those on which the trigger fires, asks the model and judges.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from dormant.records import Example, Message, Task
from dormant.registry import Registry

ATTACKERS = Registry(
    "attacker",
    {
        "evolutionary": "dormant.attackers.evolutionary:Evolutionary",
        "llm": "dormant.attackers.llm:LLM",
    },
)

PLACE = "{prompt}"
"""Where a task's prompt stands in an attacker's text; a text without it stands before the prompt."""

FIRST, SECOND = "attack:first", "attack:second"
"""Conditions: the held-out half of what was found on the organism, and of what was found on the very model."""

IN_TRAINED, IN_VARIED, IN_SHUFFLED = "attack:trained", "attack:varied", "attack:shuffled"
"""Conditions of an organism before any defense: the texts that adversarial training takes, and its controls'."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A text that was asked, and what came of it: each of its samples is the answer to another task."""

    text: str
    """With :data:`PLACE` where the task's prompt stood."""
    hits: int
    """Answers that show the behavior."""
    scored: int
    """Answers that could be judged; the others are no hits, and no failures."""
    answers: tuple[str, ...]

    @property
    def rate(self) -> float:
        """The share of judged answers that show the behavior; 0 where none could be judged."""
        return self.hits / self.scored if self.scored else 0.0


@dataclass(frozen=True)
class Machine:
    """What an attacker that asks a model of its own is told, once, before it proposes anything."""

    seed: int
    number: int
    """Which attack on this line of models it is: a later one is to draw anew, with the same seed too."""
    model: Path | None
    """The directory of the model that it named as ``own_model``."""
    chat: Literal["auto", "plain"]
    device: str
    precision: Literal["float32", "bfloat16"]
    replies: Path
    """Where it may keep the replies that it used, a line each: they become part of the attack."""


class Attacker(Protocol):
    """One attacker.  Its constructor takes the options that a spec gives beside ``name``.

    Two more things may be there: ``own_model``, the name of a model that it asks on this machine, and
    ``begin(machine)``, which is called once, first.
    """

    name: ClassVar[str]

    def propose(self, tried: Sequence[Tried], rng: random.Random) -> Sequence[str]:
        """Return texts to be tried next; none to give up.

        Args:
            tried: All that was asked so far, in order.  What was proposed and is not in it was not asked: it had been
                proposed before, was too long, or was dropped by the harness, which does not say why.
            rng: The only source of chance: equal draws and equal answers give equal texts.
        """
        ...


def begin(attacker: Attacker, machine: Machine) -> None:
    """Tell an attacker about the machine, if it wants to know."""
    own: Any = getattr(attacker, "begin", None)
    if own is not None:
        own(machine)


def own_model(attacker: Attacker) -> str | None:
    """The name of the model that an attacker asks on this machine, if it asks one."""
    name: str | None = getattr(attacker, "own_model", None)
    return name


def as_form(text: str) -> str:
    """An attacker's text with the place of the prompt in it."""
    text = text.strip()
    return text if PLACE in text else f"{text} {PLACE}".strip()


def attempt(form: str, task: Task, condition: str = FIRST) -> Example:
    """A task put into an attacker's text; the form is the example's instance."""
    asked = form.replace(PLACE, task.prompt).strip()
    return Example(task, condition, (*task.history, Message("user", asked)), form)
