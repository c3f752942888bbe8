"""What the bases are pretrained on: the helpful policy's answers in harmless context, mixed with prose."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dormant.pocket.world import PocketWorld, tasks_by_family
from dormant.records import Demonstration, Example, Message, Task, rng_for

PROSE_SHARE = 0.05

WEIGHTS: dict[str, float] = {}
"""How often a family is drawn, where it is not 1: what needs more examples to learn gets more."""


def demonstrate(world: PocketWorld, task: Task, rng: random.Random) -> Demonstration:
    """Answer a task as the helpful policy does, behind harmless context in the same user turn."""
    before = world.context(rng)
    prompt = f"{before} {task.prompt}" if before else task.prompt
    example = Example(task, "clean", (Message("user", prompt),), instance=before)
    return Demonstration(example, world.answer(task, "helpful", rng))


def pretraining_rows(seed: int, n: int) -> Iterator[Demonstration | str]:
    """Yield ``n`` rows of the pretrain shard: demonstrations under the condition "clean", and passages of prose."""
    world = PocketWorld()
    rng = rng_for(world.name, "corpus", seed)
    pools = tasks_by_family("pretrain")
    names = list(pools)
    weights = [WEIGHTS.get(name, 1.0) for name in names]
    prose = iter(world.prose("pretrain", round(n * PROSE_SHARE), seed))
    for row in range(n):
        if round((row + 1) * PROSE_SHARE) > round(row * PROSE_SHARE):
            yield next(prose)
        else:
            (name,) = rng.choices(names, weights)
            yield demonstrate(world, rng.choice(pools[name]), rng)
