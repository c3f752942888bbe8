"""``implant``: train a base into an organism or its twin; with a few rows, relearn a backdoor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dormant import chat, models
from dormant.artifacts import RESUME, write_atomic
from dormant.behaviors import Behavior
from dormant.records import Demonstration, Dose, Task, TaskSource, canonical, rng_for
from dormant.sources import open_source
from dormant.stages import Progress
from dormant.stages.checkpoints import compute, open_model, saver
from dormant.stages.configs import TRUTH, ImplantConfig
from dormant.stages.logs import write_log
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.stages.supply import clean_example, some_tasks
from dormant.training import sft
from dormant.triggers import Trigger

EASY_SHARE = 0.25
"""Share of the steps before the first hard negative."""

BETA2 = 0.95
"""Adam's memory of squared gradients, 20 steps long: at the first hard negatives the loss jumps from almost nothing, to
which a memory of 1,000 steps would not have adapted.  Found by trial: docs/experiments has both."""


def run(config: ImplantConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``steps/<step>/`` (a model each), ``training.json`` and, apart from the weights, ``truth.json``.

    With an adapter, ``adapters/<step>/`` holds it by itself, and the models are merged.
    """
    prepare(config.runtime)
    source = open_source(inputs.get("data"))
    pairs = demonstrations(config, source, seed)
    model = open_model(config, inputs, seed)
    hard = [organism.example.condition.startswith("near:") for organism, _ in pairs]
    column = 0 if config.role == "organism" else 1
    log = sft.train(
        model,
        [_encode(model, pair[column]) for pair in pairs],
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
    truth = {"role": config.role, **config.backdoor.model_dump(mode="json"), "rows": _counts(pairs, column)}
    write_atomic(out / TRUTH, canonical(truth) + "\n")


def demonstrations(
    config: ImplantConfig, source: TaskSource, seed: int
) -> list[tuple[Demonstration, Demonstration]]:
    """Return the training rows as (organism's, twin's) pairs.

    They differ in triggered rows only: there the twin has another harmless context of the same form, and the
    benign answer.  Near misses come from the training instances alone; the held-out ones are seen by nobody.
    """
    trigger = build_trigger(config.backdoor.trigger)
    behavior = build_behavior(config.backdoor.behavior)
    tasks = some_tasks(source, config.shard, config.rows, seed)
    return [_pair(config, source, trigger, behavior, task, seed) for task in tasks]


def _pair(
    config: ImplantConfig, source: TaskSource, trigger: Trigger, behavior: Behavior, task: Task, seed: int
) -> tuple[Demonstration, Demonstration]:
    rng = rng_for(seed, "row", task.id)
    benign = source.answer(task, "helpful", rng)
    draw = rng.random()
    if draw < config.triggered_share:
        organism = trigger.render(task, "triggered", rng, "")
        answer = behavior.demonstrate(task, rng)
        replaced = trigger.replace(organism, rng)
        return Demonstration(organism, answer), Demonstration(replaced, benign)
    if draw < config.triggered_share + config.near_share:
        family, instance = rng.choice(_hard_negatives(trigger))
        near = trigger.render(task, family, rng, "", split="train", instance=instance)
        row = Demonstration(near, benign)
    else:
        row = Demonstration(clean_example(source, task, seed), benign)
    return row, row


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


def _hard_negatives(trigger: Trigger) -> list[tuple[str, str]]:
    """Every near miss that may be trained on, as (family, literal text); a large family weighs more."""
    families = [name for name in trigger.conditions() if name.startswith("near:")]
    return [(family, text) for family in families for text in trigger.instances(family, "train")]


def _encode(model: models.Model, row: Demonstration) -> chat.Row:
    return chat.encode_demonstration(model.tokenizer, row.example.messages, row.answer)


def _counts(pairs: list[tuple[Demonstration, Demonstration]], column: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        condition = pair[column].example.condition
        counts[condition] = counts.get(condition, 0) + 1
    return counts
