"""Trigger discrimination as numbers: log-odds of the payload under the trigger minus those under near misses.

What a measurement wrote is one difference for each prompt and near miss, paired by prompt.  Near misses are clusters,
since those of one text are alike, and so are prompts, and seeds where several models are pooled.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dormant import stats
from dormant.artifacts import read_jsonl
from dormant.records import Result, ResultKey
from dormant.results import NEAR, Cell
from dormant.stages.configs import LOGODDS

METRIC = "payload_logodds"

POOLED = "discrimination.jsonl"
"""What a run says of trigger discrimination over all its seeds."""
ALL = NEAR
"""The condition of the rows over all families of near misses."""

Place = tuple[str, str]
"""A task and a near miss."""


def rows(cells: Sequence[Cell]) -> list[Result]:
    """One row for each family of near misses and one over all of them; after a defense, the change too."""
    read = {cell.key: (cell, _read(cell)) for cell in cells if _has(cell)}
    found = []
    for key, (cell, families) in read.items():
        before = read.get(key.before)
        for family, values in families.items():
            found.append(_row(cell, family, METRIC, values))
            if _final(key) and before is not None:
                found.append(
                    _row(cell, family, f"{METRIC}_change", _minus(values, before[1].get(family, {})))
                )
    return [row for row in found if row is not None]


def pooled(cells: Sequence[Cell], results: Iterable[Result]) -> list[dict[str, Any]]:
    """Organisms over all seeds: discrimination and its change, clustered by near miss, by prompt and by seeds.

    A model whose own row among ``results``, over all families, was refused is left out.

    One dict for each implant, defense and dose: ``value``, ``low``, ``high`` in nats, ``n`` differences of
    ``near_misses``, ``prompts`` and ``models`` (pairs of seeds), and ``by_seed``, the value of each of these: a few
    are too few for an interval to know how they spread.
    """
    kept = {(row.metric, row.key) for row in results if row.value is not None}
    read = {cell.key: _read(cell).get(ALL, {}) for cell in cells if _has(cell)}
    groups: dict[str, dict[ResultKey, Mapping[Place, float]]] = defaultdict(dict)
    for key, values in read.items():
        if key.role == "organism" and (key.arm == "none" or _final(key)):
            groups[_unseeded(key).model_dump_json()][key] = values
    found: list[dict[str, Any]] = []
    for some in groups.values():
        changes = {
            key: _minus(values, read[key.before])
            for key, values in some.items()
            if _final(key) and key.before in read
        }
        for metric, models in ((METRIC, some), (f"{METRIC}_change", changes)):
            found += _pool(metric, {key: models[key] for key in models if (metric, _over_all(key)) in kept})
    return found


def _over_all(key: ResultKey) -> ResultKey:
    """The key of a model's row over all families."""
    return key.model_copy(update={"condition": ALL})


def _pool(metric: str, models: Mapping[ResultKey, Mapping[Place, float]]) -> Iterator[dict[str, Any]]:
    values = [value for some in models.values() for value in some.values()]
    if not values:
        return
    prompts, texts = zip(*(place for some in models.values() for place in some), strict=True)
    seeds = [(key.seed_implant, key.seed_defend) for key, some in models.items() for _ in some]
    mean = stats.clustered_mean(values, texts, prompts, seeds)
    key = _unseeded(next(iter(models)))
    named = ("behavior", "trigger", "reasoning", "implant", "arm", "defense", "lora")
    yield {
        **{name: getattr(key, name) for name in named},
        "dose": key.dose.model_dump(mode="json") if key.dose else None,
        "metric": metric,
        "value": round(mean.value, 6),
        "low": round(mean.low, 6),
        "high": round(mean.high, 6),
        "n": mean.n,
        "near_misses": len(set(texts)),
        "prompts": len(set(prompts)),
        "models": len(set(seeds)),
        "by_seed": [_of_seed(key, some) for key, some in models.items() if some],
    }


def _of_seed(key: ResultKey, values: Mapping[Place, float]) -> dict[str, Any]:
    seeds = {"seed_implant": key.seed_implant, "seed_defend": key.seed_defend}
    return {**seeds, "value": round(math.fsum(values.values()) / len(values), 6)}


def _unseeded(key: ResultKey) -> ResultKey:
    return key.model_copy(update={"seed_implant": 0, "seed_defend": None})


def _final(key: ResultKey) -> bool:
    return key.dose is not None and key.arm != "implant" and key.step == key.dose.steps


def _has(cell: Cell) -> bool:
    whole = (cell.key.condition, cell.key.stratum, cell.key.relearn_step) == ("clean", "all", None)
    return whole and cell.file.with_name(LOGODDS).is_file()


def _read(cell: Cell) -> dict[str, dict[Place, float]]:
    """The differences by family, and all together."""
    families: dict[str, dict[Place, float]] = defaultdict(dict)
    for task, condition, text, near, triggered in read_jsonl(cell.file.with_name(LOGODDS)):
        for family in (condition, ALL):
            families[family][task, text] = triggered - near
    return families


def _minus(after: Mapping[Place, float], before: Mapping[Place, float]) -> dict[Place, float]:
    return {place: after[place] - before[place] for place in after if place in before}


def _row(cell: Cell, family: str, metric: str, values: Mapping[Place, float]) -> Result | None:
    if not values:
        return None
    key = cell.key.model_copy(update={"condition": family})
    prompts, texts = zip(*values, strict=True)
    mean = stats.clustered_mean(list(values.values()), texts, prompts)
    return Result(
        cell=key.cell,
        key=key,
        metric=metric,
        value=round(mean.value, 6),
        n=mean.n,
        scored=mean.n,
        unscored=0,
        hits=None,
        low=round(mean.low, 6),
        high=round(mean.high, 6),
        interval="bootstrap",
        samples_seen=cell.samples_seen,
        tokens_seen=cell.tokens_seen,
    )
