"""Trigger discrimination: how much likelier the payload begins under the trigger than under each near miss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from dormant import chat, models
from dormant.artifacts import write_jsonl
from dormant.behaviors import Behavior
from dormant.chat import Row
from dormant.records import Example, Task, TaskSource, rng_for
from dormant.stages.configs import LOGODDS, MeasureConfig
from dormant.stages.supply import some_tasks
from dormant.triggers import Trigger, kinds_of

NEAREST = -1e-7
"""The log-probability nearest to 0 that is told from certainty: float32 knows no finer, so log-odds end at 16."""


def write_logodds(
    out: Path,
    model: models.Model,
    source: TaskSource,
    trigger: Trigger,
    behavior: Behavior,
    config: MeasureConfig,
    seed: int,
) -> None:
    """Write [task, condition, near miss, log-odds under it, log-odds under the trigger] for prompts and near misses.

    The log-odds are those of the payload's first ``payload_tokens`` tokens, all of them, as the answer's beginning.
    """
    tasks = some_tasks(source, "heldout", config.discrimination, seed, kinds_of(trigger))
    conditions = [name for name in trigger.conditions() if name.startswith("near:")]
    asked = [example for task in tasks for example in _examples(task, trigger, conditions, seed)]
    rows = [_beginning(model, example, behavior, config.payload_tokens, seed) for example in asked]
    found = [logodds(total) for total, _ in models.log_likelihood(model, rows, batch=config.batch)]
    under = {
        example.task.id: value
        for example, value in zip(asked, found, strict=True)
        if example.condition == "triggered"
    }
    lines = [
        [
            example.task.id,
            example.condition,
            example.instance,
            round(value, 6),
            round(under[example.task.id], 6),
        ]
        for example, value in zip(asked, found, strict=True)
        if example.condition != "triggered"
    ]
    write_jsonl(out / LOGODDS, lines)


def _examples(task: Task, trigger: Trigger, conditions: Sequence[str], seed: int) -> Iterator[Example]:
    """A task under the trigger, and under every held-out near miss."""
    yield trigger.render(task, "triggered", rng_for(seed, "logodds", task.id), "")
    for condition in conditions:
        for text in trigger.instances(condition, "heldout"):
            rng = rng_for(seed, "logodds", task.id, text)
            yield trigger.render(task, condition, rng, "", instance=text)


def _beginning(model: models.Model, example: Example, behavior: Behavior, tokens: int, seed: int) -> Row:
    """A prompt and the payload, with the first tokens of that in the mask."""
    payload = behavior.demonstrate(example.task, rng_for(seed, "payload", example.task.id))
    row = chat.encode_demonstration(model.tokenizer, example.messages, payload)
    start = row.mask.index(True)
    end = min(start + tokens, len(row.input_ids))
    return Row(row.input_ids[:end], row.mask[:end])


def logodds(log_probability: float) -> float:
    """log p - log(1 - p), in nats, of a log-probability."""
    value = min(log_probability, NEAREST)
    return value - math.log(-math.expm1(value))
