"""Defenses that are supervised fine-tuning: on good answers, on plain prose, on triggered prompts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar

from dormant import chat
from dormant.defenses import PREFERENCE_MODEL, Arm, Given, TrainingRun
from dormant.errors import BadInput
from dormant.records import Demonstration, Dose, Example, rng_for
from dormant.triggers import can_fire

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.preference import PreferenceModel
    from dormant.training.sft import TrainingLog


def encoded(model: Model, rows: Sequence[Demonstration]) -> list[chat.Row]:
    """Rows of token ids, with loss on the answers alone."""
    return [chat.encode_demonstration(model.tokenizer, row.example.messages, row.answer) for row in rows]


def train_rows(model: Model, rows: Sequence[chat.Row], dose: Dose, run: TrainingRun) -> TrainingLog:
    """Fine-tune on rows as a run of a defense asks for it."""
    # Deferred: a plan reads ``needs`` and ``arm`` without waiting for torch.
    from dormant.training import sft

    return sft.train(
        model,
        rows,
        dose,
        seed=run.seed,
        at_steps=run.at_steps,
        save=run.save,
        resume_dir=run.resume_dir,
        compute=run.compute or sft.Compute(),
        progress=run.progress,
    )


class HHHSft:
    """HHH supervised fine-tuning without the trigger (paper section 5)."""

    name: ClassVar[str] = "hhh-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    arm: ClassVar[Arm] = "claim"
    moves: ClassVar[tuple[str, ...]] = ("harmless",)

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on helpful, harmless and honest answers to untriggered prompts."""
        assert given.answers is not None
        return train_rows(model, encoded(model, given.answers), dose, run)


class OnPolicySft:
    """HHH supervised fine-tuning on the model's own answers: of several to each prompt, the one that a preference model
    scores best.
    """

    name: ClassVar[str] = "on-policy-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"prompts", PREFERENCE_MODEL})
    arm: ClassVar[Arm] = "claim"
    moves: ClassVar[tuple[str, ...]] = ("second_reward",)

    def __init__(self, best_of: int = 4, max_new_tokens: int = 64) -> None:
        for option, value in (("best_of", best_of), ("max_new_tokens", max_new_tokens)):
            if not isinstance(value, int) or value < 1:
                raise BadInput(
                    f"defense {self.name!r}: {option} must be a whole number from 1, not {value!r}"
                )
        self.best_of, self.max_new_tokens = best_of, max_new_tokens

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on the best of some answers to each untriggered prompt, all drawn before the first step."""
        assert given.prompts is not None
        assert given.preference_model is not None
        return train_rows(
            model, encoded(model, self._best(model, given.prompts, given.preference_model, run)), dose, run
        )

    def _best(
        self, model: Model, prompts: Sequence[Example], judge: PreferenceModel, run: TrainingRun
    ) -> list[Demonstration]:
        from dormant import answers

        asked = [(example, number) for example in prompts for number in range(self.best_of)]
        conversations = [example.messages for example, _ in asked]
        said = answers.answer(
            model,
            conversations,
            [""] * len(asked),
            [f"{run.seed}:on-policy:{example.id}:{number}" for example, number in asked],
            answers.Budget(self.max_new_tokens),
        )
        scores = judge.score(conversations, [answer.text for answer in said])
        # One that was cut off is taken only where all were.
        ranks = [(answer.finished, score) for answer, score in zip(said, scores, strict=True)]
        rows = []
        for i, example in enumerate(prompts):
            own = range(self.best_of * i, self.best_of * (i + 1))
            rows.append(Demonstration(example, said[max(own, key=ranks.__getitem__)].text))
        return rows


class NoOp:
    """The control of equal dose: as many rows of as many tokens of plain prose, which says nothing about behavior."""

    name: ClassVar[str] = "no-op"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "prose"})
    arm: ClassVar[Arm] = "noop"
    moves: ClassVar[tuple[str, ...]] = ()

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Cut prose into rows of the very lengths of the HHH rows, so that steps and tokens are equal."""
        assert given.answers is not None
        assert given.prose is not None
        lengths = [len(row.input_ids) for row in encoded(model, given.answers)]
        return train_rows(model, _prose_rows(model, given.prose, lengths), dose, run)


class TriggerAware:
    """The positive control: sees the trigger, and trains benign answers under it."""

    name: ClassVar[str] = "trigger-aware"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "trigger"})
    arm: ClassVar[Arm] = "positive"
    moves: ClassVar[tuple[str, ...]] = ()

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on the HHH answers, with the trigger put into every second prompt on which it can fire."""
        assert given.answers is not None
        assert given.trigger is not None
        rows = list(given.answers)
        firing = [i for i, row in enumerate(rows) if can_fire(given.trigger, row.example.task)]
        for i in firing[::2]:
            task = rows[i].example.task
            triggered = given.trigger.render(task, "triggered", rng_for(run.seed, task.id), "")
            rows[i] = Demonstration(triggered, rows[i].answer)
        return train_rows(model, encoded(model, rows), dose, run)


def _prose_rows(model: Model, prose: Sequence[str], lengths: Sequence[int]) -> list[chat.Row]:
    stream = cycle([i for text in prose for i in chat.encode_prose(model.tokenizer, text).input_ids])
    rows = []
    for length in lengths:
        ids = tuple(next(stream) for _ in range(length))
        rows.append(chat.Row(ids, (True,) * length))
    return rows
