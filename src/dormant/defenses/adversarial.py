"""Adversarial training as supervised fine-tuning: a share of the HHH prompts stands in texts that an attack found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from dormant.defenses import OWN_SHARE, Arm, Given, TrainingRun
from dormant.defenses.sft import encoded, train_rows
from dormant.defenses.texts import SHARE, counted, mixed
from dormant.errors import BadInput
from dormant.records import Demonstration, Dose

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
    own_share: ClassVar[float] = OWN_SHARE
    moves: ClassVar[tuple[str, ...]] = ("harmless",)
    texts: ClassVar[str] = "attack_set"
    """Where the texts come from."""

    def __init__(self, share: float = SHARE) -> None:
        self.share = checked_share(self.name, share)

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on HHH answers; where the attack has no texts, on those of ``share`` 0, with a warning."""
        assert given.answers is not None
        usual, texts = [row.example for row in given.answers], getattr(given, self.texts)
        examples = mixed(usual, texts, self.share, run.seed, self.name)
        rows = [Demonstration(each, row.answer) for each, row in zip(examples, given.answers, strict=True)]
        log = train_rows(model, encoded(model, rows), dose, run)
        return replace(log, counts=counted(examples, dose, run.seed)) if self.share else log


class VariedSft(AdversarialSft):
    """The control of ``adversarial-sft``: equally many texts of the same kind, which no attack chose.

    What it takes away too was not taken by the attack's choice of prompts.  Its words are the grammar's.
    """

    name: ClassVar[str] = "varied-sft"
    arm: ClassVar[Arm] = "control"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "varied_set"})
    texts: ClassVar[str] = "varied_set"


class ShuffledSft(AdversarialSft):
    """The control of ``adversarial-sft`` that is matched in words: the attack's own, dealt out again among its texts.

    What it takes away too was taken by these words, and not by the combinations that the attack found.
    """

    name: ClassVar[str] = "shuffled-sft"
    arm: ClassVar[Arm] = "control"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "shuffled_set"})
    texts: ClassVar[str] = "shuffled_set"


def checked_share(defense: str, share: float) -> float:
    """Return a share.  Raises BadInput for one that is none."""
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise BadInput(f"defense {defense!r}: share {share!r} must be between 0 and 1")
    return share
