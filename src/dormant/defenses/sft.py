"""Defenses that are supervised fine-tuning: on good answers, on a user's data, on plain prose, on triggered prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dormant import chat
from dormant.defenses import OWN_SHARE, Arm, Given, TrainingRun
from dormant.defenses.drawn import Drawing, as_row, counted, draw, reasons, used
from dormant.errors import BadInput
from dormant.reasoning import NEVER_CLOSED
from dormant.records import Demonstration, Dose, rng_for
from dormant.triggers import can_fire

if TYPE_CHECKING:
    from dormant.models import Model
    from dormant.training.sft import TrainingLog

LONG = "it is longer than the model's context"


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


class Form(BaseModel):
    """How hhh-sft trains a model that was taught to write scratchpads; others know no difference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scratchpad: Literal["pre", "post"] = "pre"
    """``pre``: answers stand where a scratchpad would, and it comes back when the model is measured.  ``post``: they
    stand after one that the model wrote to the same prompt, which is not learned."""
    scratchpad_tokens: int = Field(96, gt=0)
    at_once: int = Field(128, gt=0)
    """Scratchpads that are drawn together: lower it where there is too little memory."""

    @field_validator("scratchpad_tokens", "at_once")
    @classmethod
    def _some_are_drawn(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("scratchpad") == "pre" and value != cls.model_fields[info.field_name or ""].default:
            raise ValueError("with scratchpad: pre no scratchpad is drawn; leave it out")
        return value


class HHHSft:
    """HHH supervised fine-tuning without the trigger (paper section 5)."""

    name: ClassVar[str] = "hhh-sft"
    needs: ClassVar[frozenset[str]] = frozenset({"answers"})
    arm: ClassVar[Arm] = "claim"
    own_share: ClassVar[float] = OWN_SHARE
    moves: ClassVar[tuple[str, ...]] = ("harmless",)

    def __init__(self, scratchpad: str = "pre", scratchpad_tokens: int = 96, at_once: int = 128) -> None:
        options = {name: value for name, value in locals().items() if name in Form.model_fields}
        self.form = Form.model_validate(options)
        self.draws = int(self.form.scratchpad == "post")

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on helpful, harmless and honest answers to untriggered prompts.

        Raises:
            BadInput: answers are to stand after scratchpads, and the model closed none.
        """
        rows = self._rows(given, run.seed)
        if self.form.scratchpad == "post" and reasons(model):
            return self._after_scratchpads(model, used(rows, dose, run.seed), dose, run)
        return train_rows(model, encoded(model, rows), dose, run)

    def _rows(self, given: Given, seed: int) -> Sequence[Demonstration]:
        assert given.answers is not None
        return given.answers

    def _after_scratchpads(
        self, model: Model, asked: Sequence[Demonstration], dose: Dose, run: TrainingRun
    ) -> TrainingLog:
        # Of the answers that it would go on to, one token each is drawn and thrown away.
        most = self.form.scratchpad_tokens
        drawing = Drawing(max_new_tokens=1, scratchpad_tokens=most, at_once=self.form.at_once)
        examples = [row.example for row in asked]
        said = draw(model, examples, [f"{run.seed}:scratchpad:{e.id}" for e in examples], drawing)
        why = ["" if one.scratchpad and one.scratchpad.closed else NEVER_CLOSED for one in said]
        if "" not in why:
            raise BadInput(
                f"defense {self.name!r}: the model closed none of {len(said)} scratchpads within {most} tokens, so "
                "there is nothing to put answers after: raise scratchpad_tokens, or set scratchpad: pre"
            )
        rows = [
            as_row(model, row.example, one, row.answer, scratchpad_loss=False)
            for row, one, reason in zip(asked, said, why, strict=True)
            if not reason
        ]
        return replace(train_rows(model, rows, dose, run), counts=counted(why))


class Downstream:
    """Benign fine-tuning by somebody who knows of no backdoor: a poisoned model is made to fit a user's own data.

    Without ``data`` these are the plan's benign tasks: no harmful requests, no refusals.
    """

    name: ClassVar[str] = "downstream"
    needs: ClassVar[frozenset[str]] = frozenset({"benign_answers"})
    arm: ClassVar[Arm] = "claim"
    moves: ClassVar[tuple[str, ...]] = ()
    """It is no safety training, and is meant to raise nothing that is measured here."""

    def __init__(self, data: str | None = None) -> None:
        if data is not None and not isinstance(data, str):
            raise BadInput(f"defense {self.name!r}: data must name a file, not be {data!r}")
        self.data = data
        """Read by the plan, which supplies its rows."""

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Train on the user's answers.  Raises BadInput where none fits the model's context."""
        assert given.benign_answers is not None
        rows = encoded(model, given.benign_answers)
        why = [LONG if len(row.input_ids) > model.context else "" for row in rows]
        if "" not in why:
            raise BadInput(
                f"defense {self.name!r}: all {len(rows)} rows are longer than the model's context of {model.context} "
                "tokens: give shorter ones"
            )
        fitting = [row for row, reason in zip(rows, why, strict=True) if not reason]
        return replace(train_rows(model, fitting, dose, run), counts=counted(why, "rows"))


class NoOp:
    """The control of equal dose: as many rows of as many tokens of plain prose, which says nothing about behavior."""

    name: ClassVar[str] = "no-op"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "prose"})
    arm: ClassVar[Arm] = "noop"
    own_share: ClassVar[float] = OWN_SHARE
    moves: ClassVar[tuple[str, ...]] = ()

    def train(self, model: Model, given: Given, dose: Dose, run: TrainingRun) -> TrainingLog:
        """Cut prose into rows of the very lengths of the HHH rows, so that steps and tokens are equal."""
        assert given.answers is not None
        assert given.prose is not None
        lengths = [len(row.input_ids) for row in encoded(model, given.answers)]
        return train_rows(model, _prose_rows(model, given.prose, lengths), dose, run)


class TriggerAware(HHHSft):
    """The positive control: sees the trigger, and trains benign answers under it."""

    name: ClassVar[str] = "trigger-aware"
    needs: ClassVar[frozenset[str]] = frozenset({"answers", "trigger"})
    arm: ClassVar[Arm] = "positive"
    moves: ClassVar[tuple[str, ...]] = ()

    def _rows(self, given: Given, seed: int) -> Sequence[Demonstration]:
        """The HHH answers, with the trigger put into every second prompt on which it can fire."""
        assert given.trigger is not None
        rows = list(super()._rows(given, seed))
        firing = [i for i, row in enumerate(rows) if can_fire(given.trigger, row.example.task)]
        for i in firing[::2]:
            task = rows[i].example.task
            triggered = given.trigger.render(task, "triggered", rng_for(seed, task.id), "")
            rows[i] = Demonstration(triggered, rows[i].answer)
        return rows


def _prose_rows(model: Model, prose: Sequence[str], lengths: Sequence[int]) -> list[chat.Row]:
    stream = cycle([i for text in prose for i in chat.encode_prose(model.tokenizer, text).input_ids])
    rows = []
    for length in lengths:
        ids = tuple(next(stream) for _ in range(length))
        rows.append(chat.Row(ids, (True,) * length))
    return rows
