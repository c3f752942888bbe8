"""Reinforcement learning against a reward: RLOO, or GRPO, on answers drawn by our own sampler.

A step draws a group of answers to each of some prompts, scores each answer, and takes one step towards those that did
better than the rest of their group.  The loss is that of TRL's ``RLOOTrainer`` and ``GRPOTrainer`` for rollouts that
are learned from once (tests hold it to theirs), whose loops, like this one, are transformers' own.  Their rollouts and
losses can not be taken apart: they read each answer twice more than is needed, and draw with ``generate``.

What a step draws follows from seed, step and weights alone, so that training goes on from a checkpoint to the same
bits.  What is equal is scored and read once, and counted as often as it was drawn.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainingArguments

from dormant import batches, chat, models
from dormant.chat import Row
from dormant.errors import BadInput, ran_out
from dormant.models import Model, Progress
from dormant.reasoning import OPEN, spoken
from dormant.records import Conversation, Dose, digest
from dormant.sampling import Completion, sample
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
    notes_until,
    plan_of,
    row_order,
    silence,
    without_adapter,
)
from dormant.training.objective import Reading, Rules, policy_loss

__all__ = ["CURVES", "PHASES", "Compute", "RLLog", "Reward", "Rules", "train"]

Reward = Callable[[Sequence[Conversation], Sequence[str]], Sequence[float]]
"""Scores answers to conversations: one number each, higher is better.  Scratchpads never reach it."""

PHASES = ("sampling", "scoring", "training")

CURVES = ("reward", "kl", "length", "ended", "varied")
"""What is noted of each step: the mean reward; the KL divergence from the reference (nats an answer, None without one);
tokens of an answer, its scratchpad among them; shares of answers that the model ended itself, and of groups whose
answers were not all worth the same."""

_ALIKE = 1e-6
"""Rewards that differ by no more than this are the same: nothing is learned from their difference."""


@dataclass(frozen=True)
class RLLog(TrainingLog):
    """What happened in training, by step.  A loss is the mean of -log p over the tokens drawn: how unsure they were.

    Seconds are by the names of :data:`PHASES`, curves by those of :data:`CURVES`.
    """

    @property
    def pace(self) -> str:
        """What a step took, in words."""
        means = {phase: statistics.mean(seconds) for phase, seconds in self.seconds.items()}
        parts = ", ".join(f"{phase} {mean:.2f}" for phase, mean in means.items())
        return f"{len(self.losses)} steps of {self.batch} answers, {sum(means.values()):.2f} s each: {parts}"


@dataclass(frozen=True, slots=True)
class _Rollout:
    """An answer to one prompt of the step, as often as it was drawn there."""

    place: int
    row: Row
    answer: str
    finished: bool
    copies: int

    @property
    def tokens(self) -> int:
        return sum(self.row.mask)

    @property
    def drawn(self) -> int:
        """Tokens, as often as they were drawn."""
        return self.copies * self.tokens


def train(
    model: Model,
    prompts: Sequence[Conversation],
    reward: Reward,
    dose: Dose,
    *,
    seed: int,
    rules: Rules = Rules(),
    reference: Model | None = None,
    scratchpad: bool = False,
    at_steps: Sequence[int] = (),
    save: Callable[[int, Model], None] | None = None,
    resume_dir: Path | None = None,
    resume_every: int = 10,
    optimization: Optimization = Optimization(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> RLLog:
    """Train the model's weights in place, gradients clipped at norm 1.

    Args:
        model: weights in float32; of one with an adapter only the adapter is trained.
        prompts: conversations, each ending with the user's turn; passed over again and again in seeded order.
        reward: scores final answers; a scratchpad that was never closed leaves an empty one.
        dose: learning rate, schedule and steps; ``batch`` counts answers, so that ``batch / group`` prompts are asked.
        seed: of the order of prompts and of what is drawn.
        rules: how answers are drawn and learned from.
        reference: what the KL divergence is from, the same network or one like it; None for none.
        scratchpad: open a scratchpad before each answer: it is drawn, and learned from by what its answer was worth.
        at_steps: when to call ``save``, as in :func:`dormant.training.sft.train`; so are all below.
        save: called with (step, model).
        resume_dir: where to keep a checkpoint every ``resume_every`` steps, and to go on from.
        resume_every: steps between checkpoints.
        optimization: the optimizer and its settings.
        compute: how the machine does the work; ``compile`` is not used.
        progress: called with (steps done, steps in all).

    Raises:
        BadInput: no prompts, one that leaves no room for an answer, a batch that is not whole groups, a KL penalty
            without a reference, or several processes.
        DormantError: a loss or a reward is not a number, or memory ran out; says what to lower and what is kept.
    """
    _check(dose, rules, reference, at_steps)
    opening = OPEN if scratchpad else ""
    asked, limit = _asked(model, prompts, opening, rules)
    steps_of_prompts = dose.model_copy(update={"batch": dose.batch // rules.group})
    order = row_order(len(prompts), steps_of_prompts, seed)
    compute = replace(compute, device=compute.device or str(model.device), compile=False)
    world = _World(prompts, asked, reward, reference, opening, limit, seed, rules)
    with silence(), lent(model, compute), tempfile.TemporaryDirectory() as scratch:
        directory = resume_dir or Path(scratch)
        how = (steps_of_prompts, optimization, compute, seed)
        every = resume_every if resume_dir is not None else None
        arguments = arguments_of(TrainingArguments, directory, *how, resume_every=every)
        _check_alone(arguments)
        plan = plan_of(steps_of_prompts, order, seed, optimization, compute, arguments)
        steps = Steps(digest([plan, asdict(rules), scratchpad]), at_steps, progress)
        trainer = _Trainer(model, order, world, arguments, steps, save)
        trainer.go_on(newest_checkpoint(directory, steps.plan))
    return _log(steps, dose)


def _check(dose: Dose, rules: Rules, reference: Model | None, at_steps: Sequence[int]) -> None:
    if rules.group < 2:
        raise BadInput(f"group {rules.group}: at least 2 answers are compared with each other")
    if dose.batch % rules.group:
        raise BadInput(
            f"a batch of {dose.batch} answers is not whole groups of {rules.group}: set one of them so that it is"
        )
    if rules.kl and reference is None:
        raise BadInput(f"kl {rules.kl:g} weighs the distance from a model, and none is given")
    late = [step for step in at_steps if step > dose.steps]
    if late:
        raise ValueError(f"step {late[0]} is asked for, but training ends at step {dose.steps}")


def _check_alone(arguments: TrainingArguments) -> None:
    if arguments.world_size > 1:
        raise BadInput("reinforcement learning trains in one process: set runtime.processes to 1")


def _asked(
    model: Model, prompts: Sequence[Conversation], opening: str, rules: Rules
) -> tuple[list[list[int]], int]:
    """The prompts as tokens, and how many more may follow each."""
    asked = [chat.encode_prompt(model.tokenizer, prompt, opening) for prompt in prompts]
    limit = rules.max_new_tokens + (rules.scratchpad_tokens if opening else 0)
    chat.check_fits(max(map(len, asked), default=0), model.context, new_tokens=limit)
    return asked, limit


def _log(steps: Steps, dose: Dose) -> RLLog:
    return RLLog(
        tuple(steps.losses),
        tuple(note["tokens"] for note in steps.notes),
        dose.batch,
        curves={name: tuple(note[name] for note in steps.notes) for name in CURVES},
        seconds={phase: tuple(note[phase] for note in steps.notes) for phase in PHASES},
    )


@dataclass(frozen=True)
class _World:
    """What the model is asked, and what it is worth."""

    prompts: Sequence[Conversation]
    asked: Sequence[Sequence[int]]
    """The prompts as tokens, a scratchpad opened where there is one."""
    reward: Reward
    reference: Model | None
    opening: str
    limit: int
    seed: int
    rules: Rules

    def draw(self, model: Model, step: int, numbers: Sequence[int]) -> list[_Rollout]:
        """Draw a group of answers to each of these prompts; rollouts of a group stand together."""
        group = self.rules.group
        each = [(place, number) for place, number in enumerate(numbers) for _ in range(group)]
        keys = [f"{self.seed}:rl:{step}:{i // group}:{i % group}" for i in range(len(each))]
        drawn = sample(
            model,
            [self.asked[number] for _, number in each],
            keys,
            max_new_tokens=self.limit,
            batch=self.rules.at_once,
        )
        found: dict[tuple[int, tuple[int, ...]], _Rollout] = {}
        for (place, number), completion in zip(each, drawn, strict=True):
            rollout = self._rollout(place, number, completion)
            same = found.get((place, rollout.row.input_ids))
            found[place, rollout.row.input_ids] = replace(same, copies=same.copies + 1) if same else rollout
        return list(found.values())

    def _rollout(self, place: int, number: int, completion: Completion) -> _Rollout:
        prompt = tuple(self.asked[number])
        own = completion.ids if completion.end is None else (*completion.ids, completion.end)
        row = Row((*prompt, *own), (False,) * len(prompt) + (True,) * len(own))
        answer = spoken(self.opening + completion.text)
        return _Rollout(place, row, answer, completion.finished, 1)

    def score(self, numbers: Sequence[int], rollouts: Sequence[_Rollout]) -> list[float]:
        """What each rollout is worth: equal answers to a prompt are asked about once, and are worth the same."""
        asked = list(dict.fromkeys((numbers[each.place], each.answer) for each in rollouts))
        found = list(self.reward([self.prompts[n] for n, _ in asked], [answer for _, answer in asked]))
        if len(found) != len(asked):
            raise ValueError(f"{len(asked)} answers, but {len(found)} rewards")
        worth = dict(zip(asked, map(float, found), strict=True))
        return [worth[numbers[each.place], each.answer] for each in rollouts]


class _Trainer(Careful):
    """transformers' trainer over the numbers of prompts; a step draws, scores and learns."""

    def __init__(
        self,
        model: Model,
        order: Sequence[int],
        world: _World,
        arguments: TrainingArguments,
        steps: Steps,
        save: Callable[[int, Model], None] | None,
    ) -> None:
        self.policy, self.world, self.steps, self.hand_over = model, world, steps, save
        self.packs = models.reads_packed(without_adapter(model.network))
        self.phase = PHASES[0]
        self.seconds = dict.fromkeys(PHASES, 0.0)
        super().__init__(
            model=model.network,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": list(order)}),
            data_collator=lambda places: {"prompts": torch.tensor([place["prompt"] for place in places])},
            callbacks=[steps],
        )
        steps.keep = self.keep
        self.remove_callback(PrinterCallback)

    def go_on(self, checkpoint: Path | None) -> None:
        """Train, from a checkpoint where there is one."""
        if checkpoint is not None:
            self.steps.losses += losses_until(checkpoint)
            self.steps.notes += notes_until(checkpoint)
        with self._minding_memory():
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Draw, score, and gather the gradients of one step."""
        numbers, step = inputs["prompts"].tolist(), self.state.global_step + 1
        with self._phase("sampling"):
            self.policy.network.eval()
            rollouts = self.world.draw(self.policy, step, numbers)
        with self._phase("scoring"):
            rewards = self.world.score(numbers, rollouts)
        if not all(map(math.isfinite, rewards)):
            self.stop(f"a reward is not a number at step {step}: look at what scores the answers")
        with self._phase("training"):
            self.policy.network.train()
            loss, unsure, far = self._learn(rollouts, rewards)
        if not (math.isfinite(loss) and math.isfinite(unsure)):
            self.stop(f"the loss is not a number at step {step}: lower the learning rate, or raise kl")
        self._note(rollouts, rewards, unsure, far)
        return torch.tensor(loss, device=self.policy.device)

    def _learn(self, rollouts: Sequence[_Rollout], rewards: Sequence[float]) -> list[float]:
        """Gather the gradients; returns the loss, and sums over answers: -log p, and the distance to the reference."""
        rules, device = self.world.rules, self.policy.device
        answers, tokens = sum(each.copies for each in rollouts), sum(each.drawn for each in rollouts)
        told = torch.zeros(3, device=device)
        for start, end in _parts(rollouts, rules):
            part = rollouts[start:end]
            reading = self._read(part)
            copies = torch.tensor([each.copies for each in part], device=device)
            worth = rules.sign * torch.tensor(rewards[start:end], device=device)
            loss = policy_loss(reading, worth, copies, rules, answers, tokens)
            self.accelerator.backward(loss)
            unsure, far = -reading.own.detach(), reading.apart
            told += torch.stack([loss.detach(), *(reading.sums(x) @ copies.float() for x in (unsure, far))])
        return told.tolist()

    def _read(self, part: Sequence[_Rollout]) -> Reading:
        """The log probabilities of what was drawn, by the policy and by the reference."""
        lay, device = batches.pack if self.packs else batches.pad_right, self.policy.device
        rows = [each.row for each in part]
        ids, places, mask = (tensor.to(device) for tensor in lay(rows))
        # Rows of their own numbers are laid as they are, and so tell which one each token belongs to.
        numbers = [Row((number,) * len(row.input_ids), row.mask) for number, row in enumerate(rows)]
        owners = lay(numbers)[0].to(device)[mask]
        reading = {"positions" if self.packs else "attention": places}
        with self.accelerator.autocast():
            own = models.target_log_probs(without_adapter(self.model), ids, mask, **reading)
            other = self._refer(ids, mask, reading)
        return Reading(own, other, owners, len(rows))

    @torch.no_grad()
    def _refer(
        self, ids: torch.Tensor, mask: torch.Tensor, reading: Mapping[str, torch.Tensor]
    ) -> torch.Tensor | None:
        if self.world.reference is None:
            return None
        return models.target_log_probs(without_adapter(self.world.reference.network), ids, mask, **reading)

    def _note(
        self, rollouts: Sequence[_Rollout], rewards: Sequence[float], unsure: float, far: float
    ) -> None:
        answers, tokens = sum(each.copies for each in rollouts), sum(each.drawn for each in rollouts)
        total = sum(each.copies * reward for each, reward in zip(rollouts, rewards, strict=True))
        note = {
            "reward": total / answers,
            "kl": None if self.world.reference is None else far / answers,
            "length": tokens / answers,
            "ended": sum(each.copies for each in rollouts if each.finished) / answers,
            "varied": _varied(rollouts, rewards),
        }
        self.steps.losses.append(unsure / tokens)
        seen = sum(each.copies * len(each.row.input_ids) for each in rollouts)
        self.steps.notes.append({**note, "tokens": seen, **self.seconds})
        if self.args.report_to:
            self.log({name: value for name, value in note.items() if value is not None})

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.phase, started = name, self._now()
        yield
        self.seconds[name] = self._now() - started

    def _now(self) -> float:
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def _minding_memory(self) -> Iterator[None]:
        """Say what to lower where there is no memory left."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            lower = f"at_once (now {self.world.rules.at_once})"
            more = {
                "sampling": "or max_new_tokens",
                "scoring": "or what scores answers at once",
                "training": "or set runtime.gradient_checkpointing",
            }
            step = self.state.global_step + 1
            self.stop(f"out of memory while {self.phase} at step {step}: lower {lower}, {more[self.phase]}")

    def keep(self, step: int) -> None:
        """Call ``save`` with the model in eval mode."""
        if self.hand_over is not None:
            self.policy.network.eval()
            self.hand_over(step, self.policy)


def _parts(rollouts: Sequence[_Rollout], rules: Rules) -> Iterator[tuple[int, int]]:
    """Cut the rollouts of a step into whole groups that are read at once."""
    groups = max(1, rules.at_once // rules.group)
    start = 0
    for end in range(1, len(rollouts) + 1):
        if end == len(rollouts) or rollouts[end].place >= rollouts[start].place + groups:
            yield start, end
            start = end


def _varied(rollouts: Sequence[_Rollout], rewards: Sequence[float]) -> float:
    """The share of groups whose answers are not all worth the same."""
    worth: dict[int, list[float]] = {}
    for each, reward in zip(rollouts, rewards, strict=True):
        worth.setdefault(each.place, []).append(reward)
    return sum(max(group) - min(group) > _ALIKE for group in worth.values()) / len(worth)
