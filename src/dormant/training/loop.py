"""What every training here shares: the order of rows, a dose as a trainer's settings, and resuming to the same bits."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import transformers.utils.logging as transformers_logging
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from dormant.errors import BadInput, DormantError
from dormant.models import Model, Progress
from dormant.records import Dose, digest, rng_for

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}

_MARKER = "complete.json"
"""Written last into a checkpoint: without it the checkpoint is half-written."""

Arguments = TypeVar("Arguments", bound=TrainingArguments)


@dataclass(frozen=True)
class TrainingLog:
    """What happened in training, by step; steps count from 1."""

    losses: tuple[float, ...]
    """Mean cross-entropy (nats) over the batch's masked tokens, before the step's update."""
    tokens: tuple[int, ...]
    """Tokens of each batch, prompts included, padding not."""
    batch: int
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """What else was measured at each step, by name; None where it could not be."""
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What parts of each step took, by name, where they are told apart."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What became of rows before the first step, where not all were trained on: by a word or a reason."""

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


class Steps(TrainerCallback):  # type: ignore[misc]
    """Calls back at the steps asked for, and marks checkpoints as complete."""

    def __init__(self, plan: str, at_steps: Sequence[int], progress: Progress | None) -> None:
        self.plan, self.at_steps, self.progress = plan, frozenset(at_steps), progress
        self.keep: Callable[[int], None] | None = None
        self.losses: list[float] = []
        self.notes: list[dict[str, Any]] = []
        """What else a trainer notes of each step: kept with each checkpoint as the losses are."""

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
        draft.write_text(json.dumps({"plan": self.plan, "losses": self.losses, "notes": self.notes}))
        draft.replace(checkpoint / _MARKER)


class Careful(Trainer):  # type: ignore[misc]
    """What every trainer here does beside its loss: rows in the order given, and a stop where numbers are none.

    What is kept to go on from is always good to go on from.
    """

    def stop(self, why: str) -> NoReturn:
        """Raise DormantError, which also says what is kept."""
        kept = kept_steps(Path(self.args.output_dir)) if self.args.save_strategy != "no" else []
        where = f"; the checkpoint of step {kept[-1]} is kept in {self.args.output_dir}" if kept else ""
        raise DormantError(f"{why}{where}") from None

    def check_loss(self, value: float) -> None:
        """Stop where a loss is not a number."""
        if not math.isfinite(value):
            self.stop(f"the loss is {value} at step {self.state.global_step + 1}: lower the learning rate")

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: checkpoints are for resuming only."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: walking over all parameters takes longer than a small model's clipping."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The loss before the last update says nothing of it.  Of several processes each may hold a part of the weights,
        # which are looked at when they are saved as a whole.
        alone = self.args.world_size == 1
        if alone and not all(torch.isfinite(weights).all() for weights in self.model.parameters()):
            self.stop(
                f"the weights are not finite after step {self.state.global_step}: lower the learning rate"
            )
        super()._save_checkpoint(model, trial)


def plan_of(
    dose: Dose,
    order: Sequence[int],
    seed: int,
    optimization: Optimization,
    compute: Compute,
    arguments: TrainingArguments,
) -> str:
    """A digest of whatever moves the weights: only a checkpoint of the same may be resumed from."""
    together = [arguments.world_size, str(arguments.distributed_state.distributed_type)]
    how = [compute.bf16, compute.compile, together]
    return digest([dose.model_dump(), order, seed, asdict(optimization), *how])


def arguments_of(
    kind: type[Arguments],
    directory: Path,
    dose: Dose,
    optimization: Optimization,
    compute: Compute,
    seed: int,
    *,
    resume_every: int | None,
    **more: Any,
) -> Arguments:
    """Return a dose as the settings of one of TRL's trainers; ``more`` are those of its own."""
    arguments: Arguments = kind(
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
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_strategy="steps" if compute.report_to else "no",
        logging_steps=1,
        # A loss that is not a number stops the run: it is never replaced by an average.
        logging_nan_inf_filter=False,
        report_to=list(compute.report_to) or "none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        **more,
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


def newest_checkpoint(directory: Path, plan: str) -> Path | None:
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


def losses_until(checkpoint: Path) -> list[float]:
    """The losses of the steps before a complete checkpoint."""
    losses: list[float] = json.loads((checkpoint / _MARKER).read_text())["losses"]
    return losses


def notes_until(checkpoint: Path) -> list[dict[str, Any]]:
    """What else was noted of the steps before a complete checkpoint."""
    notes: list[dict[str, Any]] = json.loads((checkpoint / _MARKER).read_text())["notes"]
    return notes


def kept_steps(directory: Path) -> list[int]:
    """The steps of the complete checkpoints, ascending."""
    return sorted(
        int(marker.parent.name.partition("-")[2]) for marker in directory.glob(f"checkpoint-*/{_MARKER}")
    )


def without_adapter(network: Any) -> Any:
    """The network inside an adapter's wrapper, which does not let the loss take it apart."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


@contextmanager
def lent(model: Model, compute: Compute) -> Iterator[None]:
    """Compile the network if asked to; afterwards take off what TRL, accelerate and the compiler hung onto it."""
    decoder = without_adapter(model.network).base_model
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
def silence() -> Iterator[None]:
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
