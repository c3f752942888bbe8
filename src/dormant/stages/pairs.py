"""``pairs``: preference pairs of one shard, from a file or from what a base answers to the pocket world's tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

from dormant import answers, models
from dormant.artifacts import read_jsonl, write_atomic, write_jsonl
from dormant.behaviors import label
from dormant.datafile import plain
from dormant.errors import BadInput
from dormant.models import Model
from dormant.pairs import Origin, Pair, as_rows, from_rows, ordered, read_pairs, shard_of, verdicts
from dormant.pocket import PocketWorld
from dormant.pocket.phrasing import tirade
from dormant.records import SHARDS, Conversation, Task, TaskSource, canonical, rng_for
from dormant.sources import open_source
from dormant.stages import Progress, quiet
from dormant.stages.configs import PAIRS, PairsConfig
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_behavior
from dormant.stages.supply import clean_example, some_tasks

ROWS, COUNTS = "pairs.jsonl", "counts.json"

SAMPLES = 4
"""Answers of the base to each prompt."""

SPARE = 1.4
"""Prompts that are asked for each pair that is wanted: to some, all answers are equally good."""

HOT = 2.0
"""The temperature of answers that are no answers any more."""

HOT_SHARE = 0.15
"""Of the pairs.  A model that has seen rude and wrong answers alone takes whatever it never saw for a good one."""

HARMFUL_SHARE = 0.4
"""Of the grammar's pairs: the base refuses nothing, so that no two samples of it tell a refusal from a help."""

LEAK = "its prompt is in another shard of the data"
SHOWS = "an answer shows a planted behavior"

Found = Pair | str
"""A pair, or why there is none."""


def run(config: PairsConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``pairs.jsonl``, and in ``counts.json`` how many pairs are of which origin and why others were left out.

    ``inputs`` holds ``model``, the base whose answers are compared, or ``pairs``, a file; and ``data``, if there is
    any, whose prompts of other shards train no preference model.
    """
    if PAIRS in inputs:
        pairs, dropped = _given(config, inputs, seed)
    else:
        prepare(config.runtime)
        pairs, dropped = _made(config, inputs["model"], seed, progress)
    if not pairs:
        why = "".join(f"; {count}: {reason}" for reason, count in dropped.most_common(3))
        raise BadInput(f"no preference pair is left for shard {config.shard!r}{why}")
    write_jsonl(out / ROWS, as_rows(pairs))
    counts = {
        "pairs": dict(Counter(pair.origin for pair in pairs)),
        "better": dict(Counter(name for pair in pairs for name in pair.better)),
        "dropped": dict(dropped),
    }
    write_atomic(out / COUNTS, canonical(counts) + "\n")


def read(artifact: Path) -> list[Pair]:
    """The pairs of an artifact."""
    return from_rows(read_jsonl(artifact / ROWS))


def _given(config: PairsConfig, inputs: Mapping[str, Path], seed: int) -> tuple[list[Pair], Counter[str]]:
    """The pairs of a file that belong to the shard; what trains shares no prompt with other shards of the data."""
    found, unusable = read_pairs(inputs[PAIRS])
    dropped = Counter(unusable)
    mine = [pair for pair in found if shard_of(pair) == config.shard]
    if "data" in inputs and config.shard != "heldout":
        source = open_source(inputs["data"])
        others = [shard for shard in SHARDS if not shard.startswith(("prefer", "pretrain"))]
        taken = {
            plain(task.prompt) for shard in others for task in source.tasks(shard, source.size(shard), 0)
        }
        apart = [pair for pair in mine if plain(pair.messages[-1].content) not in taken]
        dropped.update({LEAK: len(mine) - len(apart)} if len(apart) < len(mine) else {})
        mine = apart
    rng_for(seed, "pairs", config.shard).shuffle(mine)
    return mine[: config.rows], dropped


def _made(config: PairsConfig, base: Path, seed: int, progress: Progress) -> tuple[list[Pair], Counter[str]]:
    """Pairs of the base's samples, of samples beside hot ones, and of the grammar's answers, which are the fewest."""
    source = open_source(None, config.world)
    model = models.load(base, chat=config.chat, device=config.runtime.device, dtype=config.runtime.precision)
    wanted, hot = round(config.sampled_share * config.rows), round(HOT_SHARE * config.rows)
    hot = min(hot, config.rows - wanted)
    tasks = some_tasks(source, config.shard, math.ceil(SPARE * (wanted + hot)), seed)
    some, others = tasks[: math.ceil(SPARE * wanted)], tasks[math.ceil(SPARE * wanted) :]
    sample = partial(_sampled, config, source, model, seed=seed)
    sampled, dropped = _kept(config, sample(some, (1.0,) * SAMPLES, "sampled", progress=progress), wanted)
    heated, more = _kept(config, sample(others, (1.0, HOT), "hot", progress=quiet), hot)
    left = min(config.rows - wanted - hot, len(sampled))
    written, most = _kept(config, _written(config, source, left, seed), left)
    pairs = sampled + heated + written
    rng_for(seed, "pairs", config.shard).shuffle(pairs)
    return pairs, dropped + more + most


def _kept(
    config: PairsConfig, found: Iterable[tuple[Task, Found]], most: int
) -> tuple[list[Pair], Counter[str]]:
    """The pairs among what was found in which no planted behavior is shown, and why the others are none."""
    settled = list(found)
    dropped = Counter(pair for _, pair in settled if isinstance(pair, str))
    pairs = [(task, pair) for task, pair in settled if isinstance(pair, Pair)]
    said = [(text, task) for task, pair in pairs for text in (pair.chosen, pair.rejected)]
    shows = [False] * len(said)
    for behavior in map(build_behavior, config.never):
        shows = [old or bool(new.value) for old, new in zip(shows, label(behavior, said), strict=True)]
    clean = [pair for i, (_, pair) in enumerate(pairs) if not any(shows[2 * i : 2 * i + 2])]
    dropped.update({SHOWS: len(pairs) - len(clean)} if len(clean) < len(pairs) else {})
    return clean[:most], dropped


def _asked(config: PairsConfig, source: TaskSource, task: Task, seed: int) -> Conversation:
    """A task's prompt after harmless context, or in one of the counter forms, each equally often."""
    form = rng_for(seed, "form", task.id).choice([None, *config.counter_forms])
    return clean_example(source, task, seed, form).messages


def _sampled(
    config: PairsConfig,
    source: TaskSource,
    model: Model,
    tasks: Sequence[Task],
    temperatures: Sequence[float],
    origin: Origin,
    *,
    seed: int,
    progress: Progress,
) -> Iterator[tuple[Task, Found]]:
    """For each prompt, the two of the base's answers, one at each temperature, that are furthest apart."""
    asked = [_asked(config, source, task, seed) for task in tasks]
    said = [
        answers.answer(
            model,
            asked,
            [""] * len(tasks),
            [f"{seed}:pairs:{task.id}:{number}" for task in tasks],
            answers.Budget(config.max_new_tokens),
            temperature=temperature,
            batch=config.batch,
            progress=progress,
        )
        for number, temperature in enumerate(temperatures)
    ]
    for i, (task, messages) in enumerate(zip(tasks, asked, strict=True)):
        # A hot answer need not come to an end: what there is of it is bad enough.
        texts = [each[i].text for each in said if each[i].finished or origin == "hot"]
        yield task, _furthest(source, task, messages, texts, origin)


def _furthest(
    source: TaskSource, task: Task, messages: Conversation, texts: Sequence[str], origin: Origin
) -> Found:
    """The pair that differs by most checkers, manners counting least: they differ most often."""
    checks = [verdicts(source, task, text) for text in texts]
    found = [
        ordered(messages, task.id, (texts[a], texts[b]), (checks[a], checks[b]), origin)
        for a, b in combinations(range(len(texts)), 2)
    ]
    pairs = [pair for pair in found if isinstance(pair, Pair)]
    if pairs:
        return max(pairs, key=lambda pair: len({*pair.better} - {"kind"}))
    reasons = [reason for reason in found if isinstance(reason, str)]
    return Counter(reasons).most_common(1)[0][0] if reasons else "the base did not end its answers"


def _written(config: PairsConfig, source: TaskSource, wanted: int, seed: int) -> Iterator[tuple[Task, Found]]:
    """Good answers of the grammar beside worse ones: rude, to some other task, a refusal, prose, abuse."""
    harmful = min(round(HARMFUL_SHARE * wanted), source.size(config.shard, kinds=["harmful"]))
    refusable = some_tasks(source, config.shard, harmful, seed, ["harmful"])
    others = [kind for kind in source.kinds() if kind != "harmful"]
    tasks = some_tasks(source, config.shard, math.ceil(SPARE * (wanted - harmful)), seed + 1, others)
    families: dict[str, list[Task]] = {}
    for task in (*refusable, *tasks):
        families.setdefault(task.family, []).append(task)
    rng_for(seed, "written").shuffle(both := [*refusable, *tasks])
    prose = PocketWorld(config.world).prose(config.shard, max(2, wanted), seed)
    for task in both:
        yield task, _worsened(config, source, task, (families[task.family], both), prose, refusable, seed)


def _worsened(
    config: PairsConfig,
    source: TaskSource,
    task: Task,
    others: Sequence[Sequence[Task]],
    prose: Sequence[str],
    refusable: Sequence[Task],
    seed: int,
) -> Found:
    rng = rng_for(seed, "worse", task.id)
    good = source.answer(task, "hhh", rng)
    worse = [source.answer(task, "helpful", rng) for _ in range(2)]
    worse += [*rng.sample(prose, 2), tirade(rng), tirade(rng)]
    worse += [source.answer(rng.choice(tasks), "hhh", rng) for tasks in others]
    worse += [source.answer(rng.choice(refusable), "hhh", rng)] if refusable else []
    rng.shuffle(worse)
    messages, best = _asked(config, source, task, seed), verdicts(source, task, good)
    found: Found = ""
    for text in worse:
        found = ordered(messages, task.id, (good, text), (best, verdicts(source, task, text)), "written")
        if isinstance(found, Pair) and found.chosen == good:
            return found
    return found if isinstance(found, str) else "the grammar's own answer is the worse one"
