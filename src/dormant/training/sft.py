"""Supervised fine-tuning through TRL's ``SFTTrainer``, on rows and masks of our own.

What TRL does here: the loop, optimizer, schedule, clipping, precision, checkpoints.  What is ours: the rows' order
(so that an organism and its twin see the same rows at the same steps), rows that share lines instead of
padding, a loss without metrics beside it, and resuming to the same bits.

Started in several processes (by ``torchrun``'s environment variables), they train one model: each takes its part of
every batch, the loss is the mean over the whole batch's tokens, and the first process alone saves.
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
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.training_args import OptimizerNames
from trl import SFTConfig, SFTTrainer

from dormant import batches, models
from dormant.chat import Row, check_fits
from dormant.errors import BadInput, nearest
from dormant.models import Model, Progress
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
    part_of_batch,
    plan_of,
    row_order,
    silence,
    without_adapter,
)

__all__ = [
    "Compute",
    "Optimization",
    "TrainingLog",
    "check_optimizer",
    "check_trackers",
    "part_of_batch",
    "row_order",
    "train",
]

_AS_IT_IS = {"dataset_kwargs": {"skip_prepare_dataset": True}}
"""Rows are tokens already."""

_Places = Sequence[dict[str, int]]
"""A batch as the loader hands it over: each place in the order with its ``row``."""


def train(
    model: Model,
    rows: Sequence[Row],
    dose: Dose,
    *,
    seed: int,
    order: Sequence[int] | None = None,
    at_steps: Sequence[int] = (),
    save: Callable[[int, Model], None] | None = None,
    resume_dir: Path | None = None,
    resume_every: int = 100,
    optimization: Optimization = Optimization(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> TrainingLog:
    """Train the model's weights in place (AdamW by default), gradients clipped at norm 1.

    Args:
        model: weights in float32; of one with an adapter only the adapter is trained.
        rows: tokenized rows with their loss masks.
        dose: learning rate, schedule, steps and batch.
        seed: of the row order, and of dropout where a model has any.
        order: the row at each place, ``steps * batch`` of them; from :func:`row_order` if None.
        at_steps: when to call ``save``; the last step is not implied.
        save: called with (step, model) after the step's update, the network in eval mode.  A resumed call
            does not repeat calls that came before the checkpoint: keep what they wrote beside ``resume_dir``.
            Of several processes only the first calls it, with a whole model; ``model`` itself stays shared out.
        resume_dir: keep a checkpoint here every ``resume_every`` steps and start from the newest complete
            one; the weights come out the same to the bit.  The caller removes it when done.
        resume_every: steps between checkpoints.
        optimization: the optimizer and its settings.
        compute: how the machine does the work.
        progress: called with (steps done, steps in all).

    Raises:
        BadInput: no rows, none with a token to learn, a row longer than the model's context, or a batch that
            can not be split evenly over the processes.
        DormantError: the loss is not a number.
    """
    order = list(order) if order is not None else row_order(len(rows), dose, seed)
    _check(model, rows, dose, order, at_steps)
    collate = _collator(model, rows)
    with silence(), lent(model, compute), tempfile.TemporaryDirectory() as scratch:
        directory = resume_dir or Path(scratch)
        every = resume_every if resume_dir is not None else None
        where = replace(compute, device=compute.device or str(model.device))
        arguments = arguments_of(
            SFTConfig, directory, dose, optimization, where, seed, resume_every=every, **_AS_IT_IS
        )
        plan = plan_of(dose, order, seed, optimization, compute, arguments)
        steps = Steps(plan, at_steps, progress)
        trainer = _Trainer(model, Dataset.from_dict({"row": order}), collate, arguments, steps, save)
        with arguments.main_process_first(local=False):
            checkpoint = newest_checkpoint(directory, plan)
        if checkpoint is not None:
            trainer.losses += losses_until(checkpoint)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return TrainingLog(tuple(trainer.losses), _tokens(rows, order, dose.batch), dose.batch)


def check_optimizer(name: str) -> None:
    """Raise BadInput for an optimizer that transformers does not know, or whose package is not installed."""
    known = [member.value for member in OptimizerNames]
    if name not in known:
        raise BadInput(f"unknown optimizer {name!r}{nearest(name, known)}")
    try:
        with silence(), tempfile.TemporaryDirectory() as scratch:
            SFTTrainer.get_optimizer_cls_and_kwargs(SFTConfig(output_dir=scratch, optim=name, use_cpu=True))
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"optimizer {name!r} can not be used on this machine: {reason}") from None


def check_trackers(names: Sequence[str]) -> None:
    """Raise BadInput for a tracker that transformers does not know, or whose package is not installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise BadInput(
                f"unknown tracker {name!r} in runtime.report_to{nearest(name, INTEGRATION_TO_CALLBACK)}"
            )
        try:
            # Each says, when it is made, that its package is missing.
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"the tracker {name!r} can not be used on this machine: {reason}") from None


class _Trainer(Careful, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer over a dataset of row numbers, in the order given, with a lean loss."""

    def __init__(
        self,
        model: Model,
        places: Dataset,
        collate: Callable[[_Places], dict[str, torch.Tensor]],
        arguments: SFTConfig,
        steps: Steps,
        save: Callable[[int, Model], None] | None,
    ) -> None:
        self.losses: list[float] = []
        self.hand_over, self.whole = save, model
        if arguments.world_size > 1 and arguments.process_index == 0:
            # Whatever shares the weights out takes the network apart; this one is put together again to be saved.
            self.whole = replace(model, network=copy.deepcopy(model.network))
        use_cache = model.network.config.use_cache
        super().__init__(
            model=model.network,
            args=arguments,
            train_dataset=places,
            data_collator=collate,
            processing_class=model.tokenizer,
            callbacks=[steps],
        )
        # TRL turns it off for good: whoever loads what is saved here would then sample without a cache.
        model.network.config.use_cache = use_cache
        steps.losses, steps.keep = self.losses, self.keep
        self.remove_callback(PrinterCallback)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Mean cross-entropy over the masked tokens; TRL's also computes entropy and accuracy."""
        alone = self.accelerator.num_processes == 1
        loss, value = self._loss(model, **inputs) if alone else self._loss_of_part(model, **inputs)
        self.check_loss(value)
        self.losses.append(value)
        return loss

    def _loss(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, **reading: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        network = without_adapter(self.accelerator.unwrap_model(model))
        with self.accelerator.autocast():
            log_probs = models.target_log_probs(network, ids, mask, **reading)
        loss = -log_probs.mean()
        return loss, loss.item()

    def _loss_of_part(
        self,
        model: Any,
        ids: torch.Tensor,
        mask: torch.Tensor,
        *,
        attention: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, float]:
        """This process's part of the loss, and the loss of the whole batch.

        The wrapper's own forward has to run: it fetches shards and sums up gradients.
        """
        reading = {"input_ids": ids, "attention_mask": attention, "position_ids": positions}
        logits = model(**reading, use_cache=False).logits
        log_probs = models.chosen_log_probs(logits[:, :-1][mask[:, 1:]], ids, mask)
        part = -log_probs.sum()
        count = torch.tensor(float(len(log_probs)), device=part.device)
        total, tokens = self.accelerator.reduce(torch.stack([part.detach(), count]))
        # Gradients are averaged over the processes, and not weighted by how many tokens each one had.
        return part * self.accelerator.num_processes / tokens, (total / tokens).item()

    def keep(self, step: int) -> None:
        """Call ``save`` with a whole model in eval mode, in the first process."""
        if self.hand_over is None:
            return
        if self.accelerator.num_processes == 1:
            self.whole.network.eval()
            self.hand_over(step, self.whole)
            self.whole.network.train()
            return
        # All processes have to take part, whoever then holds the weights.
        weights = self.accelerator.get_state_dict(self.model_wrapped)
        if self.accelerator.is_main_process:
            self.whole.network.load_state_dict(weights)
            # TRL has switched it off, in what one process trains too.
            self.hand_over(step, self.whole)
        self.accelerator.wait_for_everyone()


def _tokens(rows: Sequence[Row], order: Sequence[int], batch: int) -> tuple[int, ...]:
    """Tokens of each batch, padding not counted."""
    lengths = [len(rows[i].input_ids) for i in order]
    return tuple(sum(lengths[i : i + batch]) for i in range(0, len(lengths), batch))


def _check(
    model: Model, rows: Sequence[Row], dose: Dose, order: Sequence[int], at_steps: Sequence[int]
) -> None:
    if len(order) != dose.steps * dose.batch:
        raise ValueError(f"{len(order)} places in the order, but {dose.steps} steps of {dose.batch} rows")
    late = [step for step in at_steps if step > dose.steps]
    if late:
        raise ValueError(f"step {late[0]} is asked for, but training ends at step {dose.steps}")
    check_fits(max(len(row.input_ids) for row in rows), model.context, what="training row")
    barren = [i for i, row in enumerate(rows) if not any(row.mask[1:])]
    if barren:
        raise BadInput(f"training row {barren[0]} has no token to learn from: its answer is empty")


def _collator(model: Model, rows: Sequence[Row]) -> Callable[[_Places], dict[str, torch.Tensor]]:
    """From places in the order to the tensors of a batch."""
    collate = _packed if models.reads_packed(without_adapter(model.network)) else _padded
    return lambda places: collate([rows[place["row"]] for place in places])


def _packed(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    return dict(zip(("ids", "positions", "mask"), batches.pack(rows), strict=True))


def _padded(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    return dict(zip(("ids", "attention", "mask"), batches.pad_right(rows), strict=True))
