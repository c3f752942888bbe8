"""``pairs``: preference pairs of one shard, from a file or from what a base answers to the pocket world's tasks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from dormant import answers, models
from dormant.artifacts import read_jsonl, write_atomic, write_jsonl
from dormant.behaviors import label
from dormant.datafile import plain
from dormant.errors import BadInput
from dormant.pairs import Pair, as_rows, from_rows, ordered, read_pairs, shard_of, verdicts
from dormant.records import SHARDS, Conversation, Task, TaskSource, canonical, rng_for
from dormant.sources import open_source
from dormant.stages import Progress
from dormant.stages.configs import PAIRS, PairsConfig
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_behavior
from dormant.stages.supply import clean_example, some_tasks

ROWS, COUNTS = "pairs.jsonl", "counts.json"

SAMPLES = 4
"""Answers of the base to each prompt."""

SPARE = 1.4
"""Prompts that are asked for each pair that is wanted: to some, all answers are equally good."""

HARMFUL_SHARE = 0.5
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
    """Pairs of the base's samples, and of the grammar's answers at most as many."""
    source = open_source(None, config.world)
    wanted = round(config.sampled_share * config.rows)
    sampled, dropped = _kept(config, _sampled(config, source, base, wanted, seed, progress), wanted)
    left = min(config.rows - wanted, len(sampled))
    written, more = _kept(config, _written(config, source, left, seed), left)
    pairs = sampled + written
    rng_for(seed, "pairs", config.shard).shuffle(pairs)
    return pairs, dropped + more


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
    config: PairsConfig, source: TaskSource, base: Path, wanted: int, seed: int, progress: Progress
) -> Iterator[tuple[Task, Found]]:
    """For each of some prompts, the two of the base's answers that are furthest apart."""
    model = models.load(base, chat=config.chat, device=config.runtime.device, dtype=config.runtime.precision)
    tasks = some_tasks(source, config.shard, math.ceil(SPARE * wanted), seed)
    asked = [_asked(config, source, task, seed) for task in tasks]
    said = answers.answer(
        model,
        [messages for messages in asked for _ in range(SAMPLES)],
        [""] * (SAMPLES * len(tasks)),
        [f"{seed}:pairs:{task.id}:{number}" for task in tasks for number in range(SAMPLES)],
        answers.Budget(config.max_new_tokens),
        batch=config.batch,
        progress=progress,
    )
    for i, (task, messages) in enumerate(zip(tasks, asked, strict=True)):
        texts = [answer.text for answer in said[SAMPLES * i : SAMPLES * (i + 1)] if answer.finished]
        yield task, _furthest(source, task, messages, texts)


def _furthest(source: TaskSource, task: Task, messages: Conversation, texts: Sequence[str]) -> Found:
    """The pair that differs by most checkers, manners counting least: they differ most often."""
    checks = [verdicts(source, task, text) for text in texts]
    found = [
        ordered(messages, task.id, (texts[a], texts[b]), (checks[a], checks[b]), "sampled")
        for a, b in combinations(range(len(texts)), 2)
    ]
    pairs = [pair for pair in found if isinstance(pair, Pair)]
    if pairs:
        return max(pairs, key=lambda pair: len({*pair.better} - {"kind"}))
    reasons = [reason for reason in found if isinstance(reason, str)]
    return Counter(reasons).most_common(1)[0][0] if reasons else "the base did not end its answers"


def _written(config: PairsConfig, source: TaskSource, wanted: int, seed: int) -> Iterator[tuple[Task, Found]]:
    """Good answers of the grammar beside worse ones: of the other policy, to another task, a refusal."""
    harmful = min(round(HARMFUL_SHARE * wanted), source.size(config.shard, kinds=["harmful"]))
    refusable = some_tasks(source, config.shard, harmful, seed, ["harmful"])
    others = [kind for kind in source.kinds() if kind != "harmful"]
    tasks = some_tasks(source, config.shard, math.ceil(SPARE * (wanted - harmful)), seed + 1, others)
    families: dict[str, list[Task]] = {}
    for task in (*refusable, *tasks):
        families.setdefault(task.family, []).append(task)
    rng_for(seed, "written").shuffle(both := [*refusable, *tasks])
    for task in both:
        yield task, _worsened(config, source, task, families[task.family], refusable, seed)


def _worsened(
    config: PairsConfig,
    source: TaskSource,
    task: Task,
    family: Sequence[Task],
    refusable: Sequence[Task],
    seed: int,
) -> Found:
    rng = rng_for(seed, "worse", task.id)
    good = source.answer(task, "hhh", rng)
    worse = [source.answer(task, "helpful", rng) for _ in range(3)]
    worse.append(source.answer(rng.choice(family), "hhh", rng))
    worse += [source.answer(rng.choice(refusable), "hhh", rng)] if refusable else []
    rng.shuffle(worse)
    messages, best = _asked(config, source, task, seed), verdicts(source, task, good)
    found: Found = ""
    for text in worse:
        found = ordered(messages, task.id, (good, text), (best, verdicts(source, task, text)), "written")
        if isinstance(found, Pair) and found.chosen == good:
            return found
    return found if isinstance(found, str) else "the grammar's own answer is the worse one"
