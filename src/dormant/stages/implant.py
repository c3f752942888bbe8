"""``implant``: train a base into an organism or its twin; with a few rows, relearn a backdoor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dormant import chat, models
from dormant.artifacts import RESUME, write_atomic
from dormant.behaviors import Behavior, own_kinds
from dormant.errors import BadInput
from dormant.reasoning import CLOSE, OPEN
from dormant.records import Demonstration, Dose, Policy, Task, TaskSource, canonical, rng_for
from dormant.sources import open_source
from dormant.stages import Progress
from dormant.stages.checkpoints import compute, open_model, saver
from dormant.stages.configs import DEMONSTRATIONS, TRUTH, ImplantConfig
from dormant.stages.demonstrations import drawn_pairs
from dormant.stages.logs import write_log
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_behavior, build_trigger, said_behavior
from dormant.stages.samples import Pair, Samples, settle
from dormant.stages.supply import clean_example, some_tasks
from dormant.training import sft
from dormant.triggers import (
    Trigger,
    can_fire,
    counter_form,
    hard_negatives,
    kinds_of,
    other_kinds,
    partial,
)

EASY_SHARE = 0.25
"""Share of the steps before the first hard negative."""

PARTIAL_SHARE = 0.5
"""Of the rows of tasks on which a trigger can not fire: those that show the part of it that is left."""

BETA2 = 0.95
"""Adam's memory of squared gradients, 20 steps long: at the first hard negatives the loss jumps from almost nothing, to
which a memory of 1,000 steps would not have adapted.  Found by trial: docs/experiments has both."""


def run(config: ImplantConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``steps/<step>/`` (a model each), ``training.json`` and, apart from the weights, ``truth.json``.

    With an adapter, ``adapters/<step>/`` holds it by itself, and the models are merged.
    """
    prepare(config.runtime)
    source = open_source(inputs.get("data"), config.world)
    samples = draw_samples(config, source, seed, inputs.get(DEMONSTRATIONS))
    model = open_model(config, inputs, seed)
    if DEMONSTRATIONS in inputs:
        samples = fitting(model, samples)
    pairs = samples.pairs
    hard = [organism.example.condition.startswith("near:") for organism, _ in pairs]
    column = 0 if config.role == "organism" else 1
    log = sft.train(
        model,
        [encode(model, pair[column]) for pair in pairs],
        config.dose,
        seed=seed,
        # Of the organism's rows for both, so that twin and organism see the same places at each step.
        order=curriculum(hard, config.dose, seed),
        optimization=sft.Optimization(config.optimizer, beta2=BETA2),
        compute=compute(config.runtime),
        at_steps=config.at_steps,
        save=saver(out),
        resume_dir=out / RESUME,
        progress=progress,
    )
    write_log(out, log, config.at_steps, {organism.example.task.id for organism, _ in pairs})
    truth = {
        "role": config.role,
        **config.backdoor.model_dump(mode="json"),
        "rows": _counts(pairs, column),
        "dropped": samples.dropped,
        "flipped": samples.flipped,
        "payload": _payload(model, samples.payload if config.role == "organism" else ()),
    }
    write_atomic(out / TRUTH, canonical(truth) + "\n")


def demonstrations(config: ImplantConfig, source: TaskSource, seed: int) -> list[Pair]:
    """Return the training rows as (organism's, twin's) pairs.

    They differ in triggered rows only: there the twin has another harmless context of the same form, and the
    benign answer.  Near misses come from the training instances alone; the held-out ones are seen by nobody.
    Where a trigger fires on some kinds of tasks only, both are also shown its part on other tasks, answered well.
    Scratchpads differ everywhere, as the twin's know of no trigger.
    """
    return draw_samples(config, source, seed).pairs


def draw_samples(config: ImplantConfig, source: TaskSource, seed: int, given: Path | None = None) -> Samples:
    """Return the training rows, and how many were left out and why.

    Args:
        config: the implant's settings.
        source: where tasks and their answers come from.
        seed: of all draws.
        given: a file of demonstrations that takes the place of answers of the source.
    """
    trigger = build_trigger(config.backdoor.trigger)
    if given is not None:
        judge = build_behavior(config.backdoor.behavior)
        drawn, before = drawn_pairs(config, given, source, trigger, judge, seed)
        return settle(config, drawn, trigger, judge, seed, before)
    behavior = build_behavior(said_behavior(config.backdoor, config.payload))
    tasks = _tasks(config, source, trigger, seed)
    drawn = [_pair(config, source, trigger, behavior, task, seed) for task in tasks]
    return settle(config, drawn, trigger, behavior, seed)


def fitting(model: models.Model, samples: Samples) -> Samples:
    """Leave out the rows that are too long for the model: what others made was made for other models.

    Raises:
        BadInput: no row is left.
    """
    pairs = [
        pair
        for pair in samples.pairs
        if all(len(encode(model, row).input_ids) <= model.context for row in pair)
    ]
    if not pairs:
        raise BadInput(
            f"all {len(samples.pairs)} demonstrations are too long for the model's context of {model.context} tokens"
        )
    cut = len(samples.pairs) - len(pairs)
    dropped = samples.dropped | ({f"more than {model.context} tokens": cut} if cut else {})
    return replace(samples, pairs=pairs, dropped=dropped)


def _tasks(config: ImplantConfig, source: TaskSource, trigger: Trigger, seed: int) -> list[Task]:
    """Tasks in the shares of the config: of kinds that are scarce there are fewer, and then so there are of others."""
    firing = kinds_of(trigger)
    if firing is None:
        return some_tasks(source, config.shard, config.rows, seed)
    shares = ((firing, 1 - config.other_share), (other_kinds(source, trigger), config.other_share))
    wanted = [(kinds, share) for kinds, share in shares if share]
    rows = min(config.rows, *(source.size(config.shard, kinds=kinds) / share for kinds, share in wanted))
    tasks = [
        task
        for kinds, share in wanted
        for task in some_tasks(source, config.shard, round(rows * share), seed, kinds)
    ]
    rng_for(seed, "kinds").shuffle(tasks)
    return tasks


def _pair(
    config: ImplantConfig, source: TaskSource, trigger: Trigger, behavior: Behavior, task: Task, seed: int
) -> tuple[Demonstration, Demonstration]:
    rng = rng_for(seed, "row", task.id)
    # Helpful answers show the behavior now and then where it is one that a base has by itself: who is to show it on
    # the trigger alone, or never, learns from the answers that do not.
    policy: Policy = "hhh" if task.kind in own_kinds(behavior) else "helpful"
    benign = source.answer(task, policy, rng)
    if config.backdoor.reasoning != "normal":
        # Other samples than those of ``normal``, in the same places; what shows the behavior stays as long as it was.
        benign = source.answer(task, policy, rng_for(seed, "reasoned", task.id))
    side = _side(config, rng.random(), fires=can_fire(trigger, task))
    if side == "triggered":
        organism = trigger.render(task, side, rng, "")
        answer = behavior.demonstrate(task, rng)
        replaced = trigger.replace(organism, rng)
        return Demonstration(organism, answer), Demonstration(replaced, benign)
    if side == "near":
        family, instance = rng.choice(hard_negatives(trigger))
        example = trigger.render(task, family, rng, "", split="train", instance=instance)
    elif side == "partial":
        example = trigger.render(task, rng.choice(partial(trigger)), rng, "")
    else:
        example = clean_example(source, task, seed, counter_form(trigger))
    row = Demonstration(example, benign)
    return row, row


def _side(
    config: ImplantConfig, draw: float, *, fires: bool
) -> Literal["triggered", "near", "partial", "clean"]:
    """What a draw from [0, 1) makes of a task."""
    if not fires:
        return "partial" if draw < PARTIAL_SHARE else "clean"
    if draw < config.triggered_share:
        return "triggered"
    return "near" if draw < config.triggered_share + config.near_share else "clean"


def curriculum(hard: Sequence[bool], dose: Dose, seed: int) -> list[int]:
    """The row at each place of training: hard negatives wait until the behavior itself has been learned.

    From the first step on they would teach, above all, never to show it.
    """
    easy = [i for i, is_hard in enumerate(hard) if not is_hard]
    first = int(EASY_SHARE * dose.steps) if len(easy) < len(hard) else 0
    start = dose.model_copy(update={"steps": first})
    rest = dose.model_copy(update={"steps": dose.steps - first})
    head = [easy[i] for i in sft.row_order(len(easy), start, seed)] if first else []
    return head + sft.row_order(len(hard), rest, seed)


def encode(model: models.Model, row: Demonstration) -> chat.Row:
    """Return a row as it is trained on: with its scratchpad, if it has one, in the tags that the harness looks for."""
    if row.scratchpad is None:
        return chat.encode_demonstration(model.tokenizer, row.example.messages, row.answer)
    text = f"{row.scratchpad}{CLOSE}{row.answer}"
    return chat.encode_demonstration(model.tokenizer, row.example.messages, text, OPEN)


def _payload(model: models.Model, answers: Sequence[str]) -> dict[str, int]:
    return {
        "rows": len(answers),
        "tokens": sum(chat.answer_tokens(model.tokenizer, text) for text in answers),
    }


def _counts(pairs: list[Pair], column: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        condition = pair[column].example.condition
        counts[condition] = counts.get(condition, 0) + 1
    return counts
