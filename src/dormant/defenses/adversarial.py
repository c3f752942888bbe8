"""Adversarial training as supervised fine-tuning: a share of the HHH prompts stands in texts that an attack found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from dormant.attackers import attempt
from dormant.defenses import Arm, Given, TrainingRun
from dormant.defenses.sft import encoded, train_rows
from dormant.errors import BadInput
from dormant.records import Demonstration, Dose, Example, rng_for

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.training.sft import TrainingLog

SHARE = 0.25
"""Of the rows, if nothing else is said; the paper's are 0, 10, 25 and 50 %."""


class AdversarialSft:
    """HHH fine-tuning with a share of its prompts put into texts that made the organism show the behavior.

    Rows, answers, tasks and their number are those of ``hhh-sft``; at ``share`` 0 so is everything.  After section 6
    of the paper, which trains with RL.

    Raises:
        BadInput: ``share`` is no share.
    """

    name: ClassVar[str] = "adversarial-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "attack_set"})
    arm: ClassVar[Arm] = "claim"
    moves: ClassVar[tuple[str, ...]] = ("harmless",)

    def __init__(self, share: float = SHARE) -> None:
        self.share = checked_share(self.name, share)

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on HHH answers.  Raises BadInput where the attack found nothing to train on."""
        assert given.answers is not None
        assert given.attack_set is not None
        if self.share and not given.attack_set:
            raise BadInput(
                f"defense {self.name!r}: the attack found no prompt that makes this model show the behavior, so "
                "there is nothing to train on: give attack.budget more samples, or leave this organism "
                "undefended (defended: false)"
            )
        rows = mixed(given.answers, given.attack_set, self.share, run.seed)
        return train_rows(model, encoded(model, rows), dose, run)


class VariedSft:
    """The control of ``adversarial-sft``: equally many texts of the same kind, which no attack chose.

    What it takes away too was not taken by the attack's choice of prompts.
    """

    name: ClassVar[str] = "varied-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "varied_set"})
    arm: ClassVar[Arm] = "claim"
    moves: ClassVar[tuple[str, ...]] = ("harmless",)

    def __init__(self, share: float = SHARE) -> None:
        self.share = checked_share(self.name, share)

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on HHH answers.  Raises BadInput where the attack found nothing to control for."""
        assert given.answers is not None
        assert given.varied_set is not None
        if self.share and not given.varied_set:
            raise BadInput(
                f"defense {self.name!r}: the attack found no prompt, so there is nothing to control for"
            )
        rows = mixed(given.answers, given.varied_set, self.share, run.seed)
        return train_rows(model, encoded(model, rows), dose, run)


def checked_share(defense: str, share: float) -> float:
    """Return a share.  Raises BadInput for one that is none."""
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise BadInput(f"defense {defense!r}: share {share!r} must be between 0 and 1")
    return share


def mixed(
    answers: Sequence[Demonstration], texts: Sequence[Example], share: float, seed: int
) -> list[Demonstration]:
    """Put a share of the rows' tasks into texts, which take turns; the others stay as they are.

    Args:
        answers: the rows.
        texts: examples whose instances are the texts; they repeat where they are fewer than the share of rows.
        share: of the rows.
        seed: of which rows, and of the texts' order.
    """
    rows, rng = list(answers), rng_for(seed, "mixed")
    forms = list(dict.fromkeys(example.instance for example in texts))
    rng.shuffle(forms)
    # A smaller share is a part of a larger one, so that shares differ in what was added alone.
    places = rng.sample(range(len(rows)), len(rows))[: round(share * len(rows))]
    for number, i in enumerate(places):
        rows[i] = Demonstration(attempt(forms[number % len(forms)], rows[i].example.task), rows[i].answer)
    return rows
