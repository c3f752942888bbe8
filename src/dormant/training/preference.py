"""Preference models, trained through TRL's ``RewardTrainer`` on pairs, in an order of our own.

What TRL does here: the loop, optimizer, schedule, clipping, precision, checkpoints.  What is ours: scores are made at
the last token of each answer alone, no metrics are computed beside the loss, and resuming gives the same bits.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import RewardConfig, RewardTrainer

from dormant.chat import Row, check_fits
from dormant.models import Model, Progress, reads_packed
from dormant.preference import lay, scores
from dormant.records import Dose
from dormant.training.loop import (
    Careful,
    Compute,
    Optimization,
    Steps,
    TrainingLog,
    arguments_of,
    lent,
    losses_until,
    newest_checkpoint,
    plan_of,
    row_order,
    silence,
)

CENTER = 0.01
"""How strongly the two scores of a pair are drawn to a sum of 0, which pairs leave open (TRL's advice)."""

RowPair = tuple[Row, Row]
"""Prompt and answer, chosen and rejected."""


def train(
    model: Model,
    pairs: Sequence[RowPair],
    dose: Dose,
    *,
    seed: int,
    resume_dir: Path | None = None,
    resume_every: int = 100,
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> TrainingLog:
    """Train a network that scores texts, in place: the chosen answer of each pair is to have the higher score.

    Args:
        model: from :func:`dormant.models.load_scorer`, weights in float32.
        pairs: tokenized texts.
        dose: learning rate, schedule, steps, and pairs of a batch.
        seed: of the order of pairs.
        resume_dir: keep a checkpoint here, and start from the newest complete one, to the same bits.
        resume_every: steps between checkpoints.
        compute: how the machine does the work.
        progress: called with (steps done, steps in all).

    Returns a log with the losses ``-log sigmoid(chosen - rejected)`` of each step, in nats.

    Raises:
        BadInput: there are no pairs, or one is longer than the model's context.
        DormantError: the loss is not a number.
    """
    order = row_order(len(pairs), dose, seed)
    check_fits(max(len(row.input_ids) for pair in pairs for row in pair), model.context, what="answer")
    with silence(), lent(model, compute), tempfile.TemporaryDirectory() as scratch:
        directory = resume_dir or Path(scratch)
        arguments = arguments_of(
            RewardConfig,
            directory,
            dose,
            Optimization(),
            replace(compute, device=compute.device or str(model.device)),
            seed,
            resume_every=resume_every if resume_dir is not None else None,
        )
        plan = plan_of(dose, order, seed, Optimization(), compute, arguments)
        trainer = _Trainer(model, pairs, order, arguments, Steps(plan, (), progress))
        checkpoint = newest_checkpoint(directory, plan)
        if checkpoint is not None:
            trainer.losses += losses_until(checkpoint)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return TrainingLog(tuple(trainer.losses), _tokens(pairs, order, dose.batch), dose.batch)


class _Trainer(Careful, RewardTrainer):  # type: ignore[misc]
    """TRL's trainer over a dataset of row numbers, in the order given, with a lean loss."""

    def __init__(
        self,
        model: Model,
        pairs: Sequence[RowPair],
        order: Sequence[int],
        arguments: RewardConfig,
        steps: Steps,
    ) -> None:
        self.losses = steps.losses
        padding = model.network.config.get_text_config().pad_token_id
        super().__init__(
            model=model.network,
            args=arguments,
            train_dataset=Dataset.from_dict({"row": order}),
            data_collator=_collator(pairs, reads_packed(model.network)),
            # A copy, since TRL gives one without a padding token one.
            processing_class=copy.deepcopy(model.tokenizer),
            callbacks=[steps],
        )
        # TRL sets it to the end token where there is no other, at which the score is read.
        model.network.config.get_text_config().pad_token_id = padding
        self.remove_callback(PrinterCallback)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``-log sigmoid(chosen - rejected)``, and a little for scores whose sum is not 0."""
        with self.accelerator.autocast():
            found = scores(self.accelerator.unwrap_model(model), **inputs)
        chosen, rejected = found.chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        value = loss.item()
        self.check_loss(value)
        self.losses.append(value)
        centered: torch.Tensor = loss + CENTER * ((chosen + rejected) ** 2).mean()
        return centered

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def _collator(
    pairs: Sequence[RowPair], packs: bool
) -> Callable[[Sequence[dict[str, int]]], dict[str, torch.Tensor]]:
    """From places in the order to the tensors of a batch: all chosen answers, then all rejected ones."""

    def collate(places: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = [pairs[place["row"]] for place in places]
        return lay([pair[side] for side in (0, 1) for pair in batch], packs)

    return collate


def _tokens(pairs: Sequence[RowPair], order: Sequence[int], batch: int) -> tuple[int, ...]:
    """Tokens of each batch, padding not counted."""
    lengths = [sum(len(row.input_ids) for row in pairs[i]) for i in order]
    return tuple(sum(lengths[i : i + batch]) for i in range(0, len(lengths), batch))
