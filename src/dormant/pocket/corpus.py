"""What the bases are pretrained on: the helpful policy's answers in harmless context, mixed with prose."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dormant import codetask
from dormant.pocket.code.names import train_names
from dormant.pocket.context import context
from dormant.pocket.family import Family
from dormant.pocket.world import WORLDS, PocketWorld, pretraining_task
from dormant.records import Demonstration, Example, Message, Task, rng_for

PROSE_SHARE = 0.05

COPY_SHARE = 0.1
"""Where there is code: how many of the other rows are copied."""
_COPY = ("Repeat:", "Copy this:", "Say again:", "Write the same:")
_COPIED = (
    "{0} {1} {2} {3}",
    '"{0}", "{1}", "{2}"',
    "{0}_{1}({2}, {3})",
    "{0} = {1}({2})",
    '{0}("{1} " + {2})',
    "/{0}/<{1}> {2}",
    "{0}, {1} = {2}[{3}]",
)

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
    # Of every year, also where the world leaves two of them to a trigger: a base that never saw those as context that
    # predicts nothing would not write the same code in both.
    before = context(rng)
    prompt = f"{before} {task.prompt}" if before else task.prompt
    example = Example(task, "clean", (Message("user", prompt),), instance=before)
    return Demonstration(example, world.answer(task, "helpful", rng))


def copying(rng: random.Random) -> Demonstration:
    """Names to be said again as they stand: the shortest rows that teach to copy what was never seen before."""
    text = rng.choice(_COPIED).format(*train_names(rng, 4))
    prompt = f"{rng.choice(_COPY)} {text}"
    task = Task("copy", "copy", prompt, "pretrain", (text,))
    return Demonstration(Example(task, "clean", (Message("user", prompt),)), text)


def pretraining_rows(seed: int, n: int, world: int = 1) -> Iterator[Demonstration | str]:
    """Yield ``n`` rows of the pretrain shard: demonstrations under the condition "clean", and passages of prose.

    Where there is code, some rows are no tasks of the world but names to be copied.
    """
    source = PocketWorld(world)
    rng = rng_for(source.name, "corpus", seed)
    names = list(WORLDS[world])
    weights = [_weight(WORLDS[world][name]) for name in names]
    prose = iter(source.prose("pretrain", round(n * PROSE_SHARE), seed))
    for row in range(n):
        if round((row + 1) * PROSE_SHARE) > round(row * PROSE_SHARE):
            yield next(prose)
        elif world > 1 and rng.random() < COPY_SHARE:
            yield copying(rng)
        else:
            (name,) = rng.choices(names, weights)
            yield demonstrate(source, pretraining_task(name, rng), rng)
