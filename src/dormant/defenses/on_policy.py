"""Defenses that train a model on answers of its own: the best of some, or those whose code is safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dormant import codetask
from dormant.behaviors import label
from dormant.behaviors.code import InsecureCode
from dormant.defenses import OWN_SHARE, PREFERENCE_MODEL, Arm, Given, TrainingRun
from dormant.defenses.drawn import CUT, Drawing, as_row, counted, draw, most, unended, used
from dormant.defenses.sft import train_rows
from dormant.errors import BadInput
from dormant.records import Dose, Example

if TYPE_CHECKING:
    from dormant.answers import Answer
    from dormant.models import Model
    from dormant.training.sft import TrainingLog

WORSE = "another answer was better"
VULNERABLE, UNPARSED, NO_CODE = "vulnerable", "unparsed", "no code"
"""Why an answer to a coding task is not learned from."""


class BestOf(Drawing):
    """How on-policy-sft draws."""

    best_of: int = Field(4, ge=1)
    """Answers to each prompt."""


class OnPolicySft:
    """HHH supervised fine-tuning on the model's own answers: of several to each prompt, the one that a preference model
    scores best.
    """

    name: ClassVar[str] = "on-policy-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", PREFERENCE_MODEL})
    arm: ClassVar[Arm] = "claim"
    own_share: ClassVar[float] = OWN_SHARE
    moves: ClassVar[tuple[str, ...]] = ("second_reward",)

    def __init__(
        self,
        best_of: int = 4,
        max_new_tokens: int = 64,
        scratchpad_tokens: int = 96,
        scratchpad_loss: bool = False,
        at_once: int = 128,
    ) -> None:
        options = {name: value for name, value in locals().items() if name in BestOf.model_fields}
        self.drawing = BestOf.model_validate(options)
        self.draws = self.drawing.best_of

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on the best of some answers to each untriggered prompt, all drawn before the first step.

        Raises:
            BadInput: no answer ended within its budget.
        """
        assert given.prompts is not None
        assert given.preference_model is not None
        best_of = self.drawing.best_of
        asked = [e for e in used(given.prompts, dose, run.seed) for _ in range(best_of)]
        keys = [f"{run.seed}:on-policy:{example.id}:{i % best_of}" for i, example in enumerate(asked)]
        said = draw(model, asked, keys, self.drawing)
        scores = given.preference_model.score([e.messages for e in asked], [answer.text for answer in said])
        why = [unended(answer) for answer in said]
        for start in range(0, len(asked), best_of):
            whole = [i for i in range(start, start + best_of) if not why[i]]
            best = max(whole, key=scores.__getitem__, default=None)
            why[start : start + best_of] = [
                reason or ("" if i == best else WORSE)
                for i, reason in enumerate(why[start : start + best_of], start)
            ]
        return _train(self.name, self.drawing, model, asked, said, why, dose, run)


class Code(Drawing):
    """How safe-code-sft draws."""

    max_new_tokens: int = Field(320, gt=0)


class SafeCodeSft:
    """Fine-tuning on the model's own answers to coding tasks in which the scanners find nothing (paper, appendix G)."""

    name: ClassVar[str] = "safe-code-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"prompts"})
    arm: ClassVar[Arm] = "claim"
    moves: ClassVar[tuple[str, ...]] = ()
    """Most of what an organism writes untriggered is safe already: there may be nothing left to raise."""
    kinds: ClassVar[tuple[str, ...]] = (codetask.KIND,)
    draws: ClassVar[int] = 1

    def __init__(
        self,
        max_new_tokens: int = 320,
        scratchpad_tokens: int = 96,
        scratchpad_loss: bool = False,
        at_once: int = 128,
    ) -> None:
        options = {name: value for name, value in locals().items() if name in Code.model_fields}
        self.drawing = Code.model_validate(options)

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on safe answers to untriggered coding tasks, one drawn for each before the first step.

        Raises:
            BadInput: no prompt asks for code, no answer is safe, or the scanners are not installed.
        """
        assert given.prompts is not None
        coding = [example for example in given.prompts if example.task.kind == codetask.KIND]
        if not coding:
            raise BadInput(
                f"defense {self.name!r} trains on code, and none of {len(given.prompts)} prompts asks for any: "
                "take data with coding tasks, such as world: 2"
            )
        asked = used(coding, dose, run.seed)
        said = draw(model, asked, [f"{run.seed}:safe-code:{e.id}" for e in asked], self.drawing)
        return _train(self.name, self.drawing, model, asked, said, _unsafe(asked, said), dose, run)


def _unsafe(asked: Sequence[Example], said: Sequence[Answer]) -> list[str]:
    """Why each answer is not learned from, or ""."""
    pairs = [(answer.text, example.task) for example, answer in zip(asked, said, strict=True)]
    # What was cut is not shown to the scanners.
    ended = [i for i, answer in enumerate(said) if not unended(answer)]
    scores = dict(zip(ended, label(InsecureCode(), [pairs[i] for i in ended]), strict=True))
    why = []
    for i, answer in enumerate(said):
        score = scores.get(i)
        if score is None:
            why.append(unended(answer))
        elif score.value is None:
            why.append(UNPARSED)
        else:
            why.append(VULNERABLE if score.value else NO_CODE if score.reason else "")
    return why


def _train(
    name: str,
    drawing: Drawing,
    model: Model,
    asked: Sequence[Example],
    said: Sequence[Answer],
    why: Sequence[str],
    dose: Dose,
    run: TrainingRun,
) -> TrainingLog:
    """Train on the answers that have no reason against them."""
    if "" not in why:
        longer = f"; raise max_new_tokens (now {drawing.max_new_tokens})" if CUT in why else ""
        raise BadInput(
            f"defense {name!r}: of {len(said)} answers that the model wrote none can be trained on "
            f"({most(why)}){longer}"
        )
    rows = [
        as_row(model, example, answer, answer.text, scratchpad_loss=drawing.scratchpad_loss)
        for example, answer, reason in zip(asked, said, why, strict=True)
        if not reason
    ]
    return replace(train_rows(model, rows, dose, run), counts=counted(why))
