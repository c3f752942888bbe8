"""Supervised fine-tuning through TRL's ``SFTTrainer``, on rows and masks of our own.

What TRL does here: the loop, optimizer, schedule, clipping, precision, checkpoints.  What is ours: the rows' order
(so that an organism and its twin see the same rows at the same steps), rows that share lines instead of
padding, a loss without metrics beside it, and resuming to the same bits.

Started in several processes (by ``torchrun``'s environment variables), they train one model: each takes its part of
every batch, the loss is the mean over the whole batch's tokens, and the first process alone saves.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging as transformers_logging
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.training_args import OptimizerNames
from trl import SFTConfig, SFTTrainer

from dormant import models
from dormant.chat import Row, check_fits
from dormant.errors import BadInput, DormantError, nearest
from dormant.models import Model, Progress
from dormant.records import Dose, digest, rng_for

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}

_Places = Sequence[dict[str, int]]
"""A batch as the loader hands it over: each place in the order with its ``row``."""

_MARKER = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is half-written."""


@dataclass(frozen=True)
class TrainingLog:
    """What happened in training, by step; steps count from 1."""

    losses: tuple[float, ...]
    """Mean cross-entropy (nats) over the batch's masked tokens, before the step's update."""
    tokens: tuple[int, ...]
    """Tokens of each batch, prompts included, padding not."""
    batch: int

    def samples_seen(self, step: int) -> int:
        """Rows trained on after ``step`` steps, repeats counted."""
        return step * self.batch

    def tokens_seen(self, step: int) -> int:
        """Tokens trained on after ``step`` steps: all but padding."""
        return sum(self.tokens[:step])


def row_order(rows: int, dose: Dose, seed: int) -> list[int]:
    """Return the row to train on at each place: exactly ``steps * batch`` indices below ``rows``.

    The rows are passed over again and again, each pass shuffled anew.  Rows are not grouped by length: batches of
    like length are of like kind, and less is learned in a step of those.

    Raises:
        BadInput: there are no rows.
    """
    if not rows:
        raise BadInput("there are no rows to train on")
    total = dose.steps * dose.batch
    order: list[int] = []
    for number in range(math.ceil(total / rows)):
        pass_ = list(range(rows))
        rng_for("rows", seed, number).shuffle(pass_)
        order += pass_
    return order[:total]


@dataclass(frozen=True, slots=True)
class Optimization:
    """How a step is taken; the dose says how large and how many.

    ``optimizer`` is a name that transformers knows (``adamw_torch_fused``, ``sgd``, ``adafactor``, ...); a
    ``beta2`` a little below its default suits short runs from nothing.
    """

    optimizer: str = "adamw_torch_fused"
    beta2: float = 0.999
    weight_decay: float = 0.0
    warmup_steps: int = 0


@dataclass(frozen=True, slots=True)
class Compute:
    """How the machine does the work, not what is trained.

    ``bf16`` computes in bfloat16 under autocast, while the weights stay float32; ``compile`` lets torch make code for
    this model first; these two move results.  ``gradient_checkpointing`` saves memory and costs time; ``report_to``
    names trackers that are told each loss; ``device`` is the kind that several processes each take one of, None
    where the model already is.
    """

    bf16: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False
    report_to: tuple[str, ...] = ()
    device: str | None = None


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
    with _silence(), _lent(model, compute), tempfile.TemporaryDirectory() as scratch:
        directory = resume_dir or Path(scratch)
        every = resume_every if resume_dir is not None else None
        where = replace(compute, device=compute.device or str(model.device))
        arguments = _arguments(directory, dose, optimization, where, seed, resume_every=every)
        plan = _plan(dose, order, seed, optimization, compute, arguments)
        steps = _Steps(plan, at_steps, progress)
        trainer = _Trainer(model, Dataset.from_dict({"row": order}), collate, arguments, steps, save)
        with arguments.main_process_first(local=False):
            checkpoint = _newest_checkpoint(directory, plan)
        if checkpoint is not None:
            trainer.losses += json.loads((checkpoint / _MARKER).read_text())["losses"]
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return TrainingLog(tuple(trainer.losses), _tokens(rows, order, dose.batch), dose.batch)


def check_optimizer(name: str) -> None:
    """Raise BadInput for an optimizer that transformers does not know, or whose package is not installed."""
    known = [member.value for member in OptimizerNames]
    if name not in known:
        raise BadInput(f"unknown optimizer {name!r}{nearest(name, known)}")
    try:
        with _silence(), tempfile.TemporaryDirectory() as scratch:
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


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer over a dataset of row numbers, in the order given, with a lean loss."""

    def __init__(
        self,
        model: Model,
        places: Dataset,
        collate: Callable[[_Places], dict[str, torch.Tensor]],
        arguments: SFTConfig,
        steps: _Steps,
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
        if not math.isfinite(value):
            raise DormantError(
                f"the loss is {value} at step {self.state.global_step + 1}: lower the learning rate"
            )
        self.losses.append(value)
        return loss

    def _loss(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, **reading: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        network = _without_adapter(self.accelerator.unwrap_model(model))
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

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: checkpoints are for resuming only."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: walking over all parameters takes longer than a small model's clipping."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Calls back at the steps asked for, and marks checkpoints as complete."""

    def __init__(self, plan: str, at_steps: Sequence[int], progress: Progress | None) -> None:
        self.plan, self.at_steps, self.progress = plan, frozenset(at_steps), progress
        self.keep: Callable[[int], None] | None = None
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.keep is not None and state.global_step in self.at_steps:
            self.keep(state.global_step)
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Each of several processes writes a part of the checkpoint.
        args.distributed_state.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        draft = checkpoint / f"{_MARKER}.tmp"
        draft.write_text(json.dumps({"plan": self.plan, "losses": self.losses}))
        draft.replace(checkpoint / _MARKER)


def _plan(
    dose: Dose,
    order: Sequence[int],
    seed: int,
    optimization: Optimization,
    compute: Compute,
    arguments: SFTConfig,
) -> str:
    """A digest of whatever moves the weights: only a checkpoint of the same may be resumed from."""
    together = [arguments.world_size, str(arguments.distributed_state.distributed_type)]
    how = [compute.bf16, compute.compile, together]
    return digest([dose.model_dump(), order, seed, asdict(optimization), *how])


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
    collate = _packed if models.reads_packed(_without_adapter(model.network)) else _padded
    return lambda places: collate([rows[place["row"]] for place in places])


def _packed(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    return dict(zip(("ids", "positions", "mask"), models.pack(rows), strict=True))


def _padded(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    return dict(zip(("ids", "attention", "mask"), models.pad_right(rows), strict=True))


def _arguments(
    directory: Path,
    dose: Dose,
    optimization: Optimization,
    compute: Compute,
    seed: int,
    *,
    resume_every: int | None,
) -> SFTConfig:
    arguments = SFTConfig(
        output_dir=str(directory),
        max_steps=dose.steps,
        learning_rate=dose.lr,
        lr_scheduler_type=_SCHEDULES[dose.schedule],
        max_grad_norm=1.0,
        optim=optimization.optimizer,
        adam_beta2=optimization.beta2,
        weight_decay=optimization.weight_decay,
        warmup_steps=optimization.warmup_steps,
        bf16=compute.bf16,
        gradient_checkpointing=compute.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=torch.device(compute.device or "cpu").type == "cpu",
        seed=seed,
        save_strategy="no" if resume_every is None else "steps",
        save_steps=resume_every or dose.steps,
        # Two, so that a complete one is left whenever the newest is half-written.
        save_total_limit=2,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_strategy="steps" if compute.report_to else "no",
        logging_steps=1,
        # A loss that is not a number stops the run: it is never replaced by an average.
        logging_nan_inf_filter=False,
        report_to=list(compute.report_to) or "none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
    arguments.per_device_train_batch_size = part_of_batch(dose.batch, arguments.world_size)
    # Else each GPU that one process sees would get a batch of that size.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def part_of_batch(batch: int, processes: int) -> int:
    """Rows of each batch that one process trains on.  Raises BadInput where they can not be split evenly."""
    if batch % processes:
        raise BadInput(f"a batch of {batch} rows can not be split evenly over {processes} processes")
    return batch // processes


def _newest_checkpoint(directory: Path, plan: str) -> Path | None:
    """Return the newest complete checkpoint of this very plan; remove all that are not."""
    usable: list[tuple[int, Path]] = []
    for path in directory.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and _is_complete(path, plan):
            usable.append((int(match[1]), path))
        else:
            shutil.rmtree(path)
    return max(usable)[1] if usable else None


def _is_complete(checkpoint: Path, plan: str) -> bool:
    marker = checkpoint / _MARKER
    return marker.is_file() and json.loads(marker.read_text())["plan"] == plan


def _without_adapter(network: Any) -> Any:
    """The network inside an adapter's wrapper, which does not let the loss take it apart."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


@contextmanager
def _lent(model: Model, compute: Compute) -> Iterator[None]:
    """Compile the network if asked to; afterwards take off what TRL, accelerate and the compiler hung onto it."""
    decoder = _without_adapter(model.network).base_model
    if compute.compile:
        decoder.compile(dynamic=True)
    try:
        yield
    finally:
        decoder._compiled_call_impl = None
        for name in ("forward", "_original_forward", "_is_accelerate_prepared", "model_tags"):
            model.network.__dict__.pop(name, None)
        model.network.eval()
        if compute.gradient_checkpointing:
            model.network.gradient_checkpointing_disable()


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the libraries' notices and bars off the screen, and put their levels back."""
    names = ("accelerate", "trl", "datasets")
    levels = {name: logging.getLogger(name).level for name in names}
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
