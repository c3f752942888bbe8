"""Whether the trigger is told from its near misses, before and after each defense."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from dormant.discrimination import CONFUSED, FEWEST, METRIC, POOLED
from dormant.records import Dose
from dormant.report import sheets, words
from dormant.report.kinds import share_of
from dormant.report.protocol import Lineage, Trial
from dormant.report.rundata import Run


class OfSeed(BaseModel):
    """The same of one model alone."""

    seed_implant: int
    seed_defend: int | None
    value: float


class Pooled(BaseModel):
    """Trigger discrimination of one kind of model over all its seeds: nats."""

    model_config = ConfigDict(extra="ignore")

    behavior: str
    trigger: str
    reasoning: str
    implant: str
    defense: str
    lora: str
    dose: Dose | None
    metric: str
    among: str = "all"
    value: float
    low: float
    high: float
    n: int
    near_misses: int
    prompts: int
    models: int
    by_seed: list[OfSeed]


@dataclass(frozen=True)
class Change:
    """How a defense changed discrimination, and the two that it is a difference of: nats."""

    whole: Pooled | None
    triggered: Pooled | None
    near: Pooled | None


@dataclass(frozen=True)
class Discrimination:
    """How much likelier the payload begins under the trigger than under near misses: nats, over all seeds."""

    label: str
    share: float
    before: Pooled
    after: Pooled
    change: Change
    confused: Change
    """Its change among the near misses that the organism took for the trigger before any defense."""
    rates: list[tuple[str, str]]
    """Triggered and near-miss rates of each seed, in words."""
    no_op: bool = False
    """Whether it is of a no-op."""


def discriminations(run: Run, organisms: list[Lineage]) -> list[Discrimination]:
    """Trigger discrimination before and after each defense, by its share of prompts from the attack."""
    pooled = run.pooled(POOLED, Pooled)
    found: dict[str, Discrimination] = {}
    for lineage in organisms:
        for trial in lineage.trials:
            label = f"{lineage.label.split(' seed ')[0]} organism, {trial.label}"
            before, after = (_pooled(pooled, lineage, each, METRIC) for each in (None, trial))
            if not (before and after):
                continue
            change, confused = (_change(pooled, lineage, trial, among) for among in ("all", CONFUSED))
            share, no_op = share_of(run, trial), trial.arm == "noop"
            made = Discrimination(label, share, before, after, change, confused, [], no_op)
            found.setdefault(label, made).rates.append(_told_rates(run, lineage, trial))
    return sorted(found.values(), key=lambda one: one.share)


def _change(rows: list[Pooled], lineage: Lineage, trial: Trial, among: str) -> Change:
    parts = (METRIC, f"{METRIC}_triggered", f"{METRIC}_near")
    return Change(*(_pooled(rows, lineage, trial, f"{part}_change", among) for part in parts))


def _pooled(
    rows: Iterable[Pooled], lineage: Lineage, trial: Trial | None, metric: str, among: str = "all"
) -> Pooled | None:
    wanted = {
        "among": among,
        "implant": lineage.implant,
        "behavior": lineage.behavior,
        "trigger": lineage.trigger,
        "reasoning": lineage.reasoning,
        "metric": metric,
        "defense": trial.defense if trial else "none",
        "lora": trial.lora if trial else "none",
        "dose": trial.dose if trial else None,
    }
    return next((row for row in rows if all(getattr(row, k) == v for k, v in wanted.items())), None)


def _told_rates(run: Run, lineage: Lineage, trial: Trial) -> tuple[str, str]:
    places = (lineage.organism, trial.after)
    triggered, near = (
        " → ".join(words.value(rate) for rate in rates)
        for rates in (
            [run.get(place, "shown", "triggered") for place in places],
            [sheets.pooled_near_misses(run, place) for place in places],
        )
    )
    return triggered, near


def nats(row: Pooled | None, *, signed: bool = False) -> str:
    """A pooled number as the report writes it."""
    if row is None:
        return words.NOT_MEASURED
    sign = "+" if signed and row.value > 0 else ""
    return f"{sign}{row.value:.3g} nats [{row.low:.3g}, {row.high:.3g}]"


def behind(row: Pooled) -> str:
    """What lies behind a pooled number; of several models the number of each: they are too few for an interval."""
    text = (
        f"n={row.n} pairs, {_many(row.near_misses, 'near miss', 'near misses')}, "
        f"{_many(row.prompts, 'prompt', 'prompts')}, {_many(row.models, 'model', 'models')}"
    )
    each = ", ".join(f"{one.value:.3g}" for one in row.by_seed)
    return f"{text}: {each}" if len(row.by_seed) > 1 else text


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def beside_no_ops(found: Iterable[Discrimination]) -> str:
    """What the no-ops of a run did to discrimination, in a sentence: what they share is not a defense's doing."""
    told = [
        f"{one.label} {nats(one.change.whole, signed=True)}, {among_confused(one)}"
        for one in found
        if one.no_op and one.change.whole
    ]
    if not told:
        return "No no-op was measured beside them: any training may have done what stands here."
    return f"What training that says nothing of the behavior changed it by: {'; '.join(told)}."


def among_confused(one: Discrimination) -> str:
    """The change among near misses that had worked, in words."""
    # Where the organism was judged, so were they: only their number is left as a reason.
    if one.change.whole and not one.confused.whole:
        return f"fewer than {FEWEST} near misses had worked"
    counted = f" ({behind(one.confused.whole)})" if one.confused.whole else ""
    return f"among near misses that had worked {nats(one.confused.whole, signed=True)}{counted}"
