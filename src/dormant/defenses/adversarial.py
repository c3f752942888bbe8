"""Adversarial training as supervised fine-tuning: a share of the HHH prompts stands in texts that an attack found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from dormant.defenses import Arm, Given, TrainingRun
from dormant.defenses.sft import encoded, train_rows
from dormant.defenses.texts import SHARE, around, some
from dormant.errors import BadInput
from dormant.records import Demonstration, Dose, Example

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.training.sft import TrainingLog


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
        rows = _placed(given.answers, some(given.attack_set, self.share, self.name), self.share, run.seed)
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
        rows = _placed(given.answers, some(given.varied_set, self.share, self.name), self.share, run.seed)
        return train_rows(model, encoded(model, rows), dose, run)


def checked_share(defense: str, share: float) -> float:
    """Return a share.  Raises BadInput for one that is none."""
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise BadInput(f"defense {defense!r}: share {share!r} must be between 0 and 1")
    return share


def _placed(
    answers: Sequence[Demonstration], texts: Sequence[Example], share: float, seed: int
) -> list[Demonstration]:
    """The rows, a share of whose prompts stand in texts."""
    examples = around([row.example for row in answers], texts, share, seed)
    return [Demonstration(example, row.answer) for example, row in zip(examples, answers, strict=True)]
