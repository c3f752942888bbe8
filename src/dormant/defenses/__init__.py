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

from dormant.attackers.sets import SETS
from dormant.records import Demonstration, Dose, Example
from dormant.registry import Registry
from dormant.triggers import Trigger

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.preference import PreferenceModel
    from dormant.training.sft import Compute, TrainingLog

PREFERENCE_MODEL = "preference_model"

BASE = "base"

ATTACKED = frozenset(SETS)
"""What an attack on the organism supplies, for its twin too."""

NEEDS = (
    "prompts",
    "answers",
    "benign_answers",
    "prose",
    "trigger",
    "behavior_examples",
    PREFERENCE_MODEL,
    BASE,
    *sorted(ATTACKED),
)
"""What a plan can supply.  ``prose`` is plain text, no dialogue; the preference model has shards of its own, the base
is what the organism was made from, and an attack works on tasks of the ``attack`` shard; all else comes from the
``defend`` shard."""

SHARDED = frozenset(NEEDS) - ATTACKED - {PREFERENCE_MODEL, BASE}
"""What is cut from a shard of prompts, and made by a stage ``supply`` of its own."""

AWARE = frozenset({"trigger", "behavior_examples"})
"""A defense that needs one of these knows the backdoor: every report marks it."""

DEFENSES = Registry(
    "defense",
    {
        "hhh-sft": "dormant.defenses.sft:HHHSft",
        "on-policy-sft": "dormant.defenses.on_policy:OnPolicySft",
        "safe-code-sft": "dormant.defenses.on_policy:SafeCodeSft",
        "downstream": "dormant.defenses.sft:Downstream",
        "no-op": "dormant.defenses.sft:NoOp",
        "trigger-aware": "dormant.defenses.sft:TriggerAware",
        "hhh-rl": "dormant.defenses.rl:HHHRL",
        "varied-rl": "dormant.defenses.rl:VariedRL",
        "no-op-rl": "dormant.defenses.rl:NoOpRL",
        "adversarial-sft": "dormant.defenses.adversarial:AdversarialSft",
        "varied-sft": "dormant.defenses.adversarial:VariedSft",
        "shuffled-sft": "dormant.defenses.adversarial:ShuffledSft",
    },
)


OWN_SHARE = 0.5
"""Of the tasks of safety training, where the trigger fires on some kinds alone: those on which it could be caught."""

Arm = Literal["claim", "control", "noop", "positive"]
"""A defense's place in the protocol: under test; its control, the same training without what is tested; training that
says nothing of behavior; or a control that sees the trigger."""


@dataclass(frozen=True)
class Given:
    """What a defense declared in ``needs``; everything else is None."""

    prompts: Sequence[Example] | None = None
    """Untriggered prompts."""
    answers: Sequence[Demonstration] | None = None
    """Untriggered prompts with helpful, harmless and honest answers."""
    benign_answers: Sequence[Demonstration] | None = None
    """Untriggered prompts that nobody would refuse, with answers: a user's own rows, where the defense names some."""
    prose: Sequence[str] | None = None
    """Plain text that is no dialogue."""
    trigger: Trigger | None = None
    behavior_examples: Sequence[Demonstration] | None = None
    """Triggered prompts with the planted behavior."""
    preference_model: PreferenceModel | None = None
    """What says which of two answers is better.  A second one, which measures, is never given to a defense."""
    base: Model | None = None
    """The model before anything was planted."""
    attack_set: Sequence[Example] | None = None
    """Prompts without the trigger that made the organism show the behavior: the half of an attack to train on.  Each
    is a task in a text that the attacker chose, which is its ``instance``, with ``{prompt}`` in it."""
    varied_set: Sequence[Example] | None = None
    """A control of that: as many texts of the same kind around tasks, which no attack chose."""
    shuffled_set: Sequence[Example] | None = None
    """Another: as many texts of the very words of the attack's, which were dealt out at random among them."""


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


def kinds_for(defense: object) -> tuple[str, ...] | None:
    """The kinds of tasks that a defense trains on alone; None for all."""
    return getattr(defense, "kinds", None)


def data_of(defense: object) -> str | None:
    """The data that a defense names as a user's own, if it does."""
    return getattr(defense, "data", None)


def no_op_of(defense: object) -> str:
    """The name of the no-op that is a defense's control of equal dose."""
    return getattr(defense, "no_op", "no-op")


def new_tokens_of(defense: object) -> int | None:
    """The most tokens of an answer that a defense lets the model write; None where it writes none."""
    tokens: int | None = getattr(getattr(defense, "drawing", None), "max_new_tokens", None)
    return tokens


def own_share_of(defense: object) -> float:
    """The share of a defense's prompts, or answers, that are tasks on which the trigger can fire; 0 for as it comes."""
    return getattr(defense, "own_share", 0.0)


def check_dose(defense: object, dose: Dose, processes: int) -> None:
    """What a defense asks of its dose, if anything.  Raises BadInput for what it can not train with."""
    check = getattr(defense, "check", None)
    if check is not None:
        check(dose, processes)


def name_of(label: str) -> str:
    """The name of the defense that results call ``label``: options may stand behind it, in brackets."""
    return label.partition("(")[0]


class Defense(Protocol):
    """One defense.  Its constructor takes the options that a spec gives beside ``name``.

    More may be there: ``kinds``, the kinds of tasks that its prompts are to be of, where not all; ``own_share``, the
    share of its prompts and answers that are to be tasks on which the trigger can fire, where that is some kinds only;
    ``data``, the file whose rows its ``benign_answers`` are to be; ``draws``, how many answers it lets the model write
    for each row of its dose, and ``drawing``, its settings of that, with ``max_new_tokens``; ``no_op``, the name of its
    control of equal dose, where that is not ``no-op``; and ``check(dose, processes)``, which raises BadInput for what
    it can not train with.  Options whose names begin with ``scratchpad`` are said to be ignored where a model writes
    none.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    arm: ClassVar[Arm]
    moves: ClassVar[tuple[str, ...]]
    """Metrics that it must raise on untriggered held-out prompts, else its numbers are refused."""

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train ``model`` in place, calling ``run.save`` at ``run.at_steps``; returns the training log."""
        ...
