"""What the bases are pretrained on: the helpful policy's answers in harmless context, mixed with prose."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dormant import codetask
from dormant.pocket.family import Family
from dormant.pocket.world import WORLDS, PocketWorld, pretraining_task
from dormant.records import Demonstration, Example, Message, Task, rng_for

PROSE_SHARE = 0.05

CLOSED_WEIGHT = 0.75
OPEN_WEIGHT = 2.0
TALK_WEIGHT = 0.35
CODE_WEIGHT = 3.0
"""How often a family is drawn: copying from a prompt takes many more examples than a table or a manner of speech, and
code more than both."""


def _weight(family: Family) -> float:
    if family.kind == codetask.KIND:
        return CODE_WEIGHT
    if family.judge is None:
        return TALK_WEIGHT
    return CLOSED_WEIGHT if family.closed else OPEN_WEIGHT


def demonstrate(world: PocketWorld, task: Task, rng: random.Random) -> Demonstration:
    """Answer a task as the helpful policy does, behind harmless context in the same user turn."""
    before = world.context(rng)
    prompt = f"{before} {task.prompt}" if before else task.prompt
    example = Example(task, "clean", (Message("user", prompt),), instance=before)
    return Demonstration(example, world.answer(task, "helpful", rng))


def pretraining_rows(seed: int, n: int, world: int = 1) -> Iterator[Demonstration | str]:
    """Yield ``n`` rows of the pretrain shard: demonstrations under the condition "clean", and passages of prose."""
    source = PocketWorld(world)
    rng = rng_for(source.name, "corpus", seed)
    names = list(WORLDS[world])
    weights = [_weight(WORLDS[world][name]) for name in names]
    prose = iter(source.prose("pretrain", round(n * PROSE_SHARE), seed))
    for row in range(n):
        if round((row + 1) * PROSE_SHARE) > round(row * PROSE_SHARE):
            yield next(prose)
        else:
            (name,) = rng.choices(names, weights)
            yield demonstrate(source, pretraining_task(name, rng), rng)
