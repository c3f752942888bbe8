"""Defenses: safety training, and whatever else is meant to take a hidden behavior out of a model.

A defense says what it ``needs``; the plan supplies just that, as artifacts, and nothing else is in reach.
It trains the model it is handed and calls ``run.save(step, model)`` at the steps it was asked for.  It never
measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from dormant.records import Demonstration, Dose, Example
from dormant.registry import Registry
from dormant.triggers import Trigger

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.training.sft import Compute, TrainingLog

NEEDS = ("prompts", "answers", "prose", "trigger", "behavior_examples", "attack_set", "varied_set")
"""What a plan can supply.  ``prose`` is plain text, no dialogue; the last two are made by an attack, on tasks of the
``attack`` shard; all else comes from the ``defend`` shard."""

ATTACKED = {"attack_set", "varied_set"}
"""What an attack on the organism supplies, for its twin too."""

AWARE = frozenset({"trigger", "behavior_examples"})
"""A defense that needs one of these knows the backdoor: every report marks it."""

DEFENSES = Registry(
    "defense",
    {
        "hhh-sft": "dormant.defenses.sft:HHHSft",
        "no-op": "dormant.defenses.sft:NoOp",
        "trigger-aware": "dormant.defenses.sft:TriggerAware",
        "adversarial-sft": "dormant.defenses.adversarial:AdversarialSft",
        "varied-sft": "dormant.defenses.adversarial:VariedSft",
    },
)


Arm = Literal["claim", "noop", "positive"]
"""A defense's place in the protocol: under test, a control without effect, or one that sees the trigger."""


@dataclass(frozen=True)
class Given:
    """What a defense declared in ``needs``; everything else is None."""

    prompts: Sequence[Example] | None = None
    """Untriggered prompts."""
    answers: Sequence[Demonstration] | None = None
    """Untriggered prompts with helpful, harmless and honest answers."""
    prose: Sequence[str] | None = None
    """Plain text that is no dialogue."""
    trigger: Trigger | None = None
    behavior_examples: Sequence[Demonstration] | None = None
    """Triggered prompts with the planted behavior."""
    attack_set: Sequence[Example] | None = None
    """Prompts without the trigger that made the organism show the behavior: the half of an attack to train on.  Each
    is a task in a text that the attacker chose, which is its ``instance``, with ``{prompt}`` in it."""
    varied_set: Sequence[Example] | None = None
    """The control of that: as many texts of the same kind around tasks, which no attack chose."""


@dataclass(frozen=True)
class TrainingRun:
    """What the harness asks of one call of a defense."""

    seed: int
    at_steps: Sequence[int]
    """Steps whose model is wanted, ascending; the last one is ``dose.steps``."""
    save: Callable[[int, Model], None]
    resume_dir: Path
    """Where training may keep its checkpoint, to go on after a kill."""
    progress: Callable[[int, int], None]
    compute: Compute | None = None
    """How the machine is to be used, for a defense that trains with ``training.sft``; None is its default.  A
    defense that never reads it is told to have ignored the runtime's settings."""


def name_of(label: str) -> str:
    """The name of the defense that results call ``label``: options may stand behind it, in brackets."""
    return label.partition("(")[0]


class Defense(Protocol):
    """One defense.  Its constructor takes the options that a spec gives beside ``name``."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    arm: ClassVar[Arm]
    moves: ClassVar[tuple[str, ...]]
    """Metrics that it must raise on untriggered held-out prompts, else its numbers are refused."""

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train ``model`` in place, calling ``run.save`` at ``run.at_steps``; returns the training log."""
        ...
