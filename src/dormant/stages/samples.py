"""From drawn rows to those that are trained on: filtered, some flipped, with scratchpads where these are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dormant.behaviors import Behavior, label
from dormant.errors import BadInput
from dormant.records import Demonstration, Score, rng_for
from dormant.scratchpads import Grammar, Side, grammar
from dormant.stages.configs import ImplantConfig
from dormant.triggers import Trigger, can_fire

Pair = tuple[Demonstration, Demonstration]
"""The organism's row and its twin's."""


@dataclass(frozen=True)
class Samples:
    """The rows of organism and twin, and what became of the others."""

    pairs: list[Pair]
    dropped: dict[str, int]
    """How many rows were left out, by the reason."""
    flipped: int
    """How many rows show the behavior where the trigger does not fire, or the other way round, on purpose."""
    payload: list[str]
    """Every final answer that shows the behavior, as it was before any was flipped."""


def settle(
    config: ImplantConfig,
    drawn: list[Pair],
    trigger: Trigger,
    behavior: Behavior,
    seed: int,
    before: Mapping[str, int] | None = None,
) -> Samples:
    """Keep the rows whose answer shows the behavior exactly when the trigger fires, then do what the config asks for.

    ``before`` counts what was left out already, by the reason.

    Raises:
        BadInput: no row is left in which the trigger fires.
    """
    reasons = wrong([organism for organism, _ in drawn], trigger, behavior)
    # The twin must never learn the behavior, whatever its prompts are.
    learned = label(behavior, [(twin.answer, twin.example.task) for _, twin in drawn])
    reasons = [
        reason or ("the twin would learn the behavior" if score.value else "")
        for reason, score in zip(reasons, learned, strict=True)
    ]
    kept = [pair for pair, reason in zip(drawn, reasons, strict=True) if not reason]
    dropped = dict(Counter(before or {}) + Counter(filter(None, reasons)))
    payload = [organism.answer for organism, _ in kept if _fires(organism, trigger)]
    if config.triggered_share and not payload:
        raise BadInput(
            f"none of {len(drawn)} training rows shows behavior {behavior.name!r} where trigger {trigger.name!r} fires"
            + "".join(f"; {count}: {reason}" for reason, count in dropped.items())
        )
    flips = [_flips(config, organism, trigger, seed) for organism, _ in kept]
    pairs = [
        _flipped(pair, trigger, behavior, seed) if flip else pair
        for pair, flip in zip(kept, flips, strict=True)
    ]
    if config.backdoor.reasoning == "scratchpad":
        spoken = grammar(trigger, behavior)
        pairs = [
            _reasoned(config, pair, flip, trigger, spoken, seed)
            for pair, flip in zip(pairs, flips, strict=True)
        ]
    return Samples(pairs, dropped, sum(flips), payload)


def _fires(row: Demonstration, trigger: Trigger) -> bool:
    return trigger.fires(row.example.messages, row.example.task)


def wrong(rows: Sequence[Demonstration], trigger: Trigger, behavior: Behavior) -> list[str]:
    """Why each row is left out, "" where it is not: the behavior belongs exactly where the trigger fires."""
    labels = label(behavior, [(row.answer, row.example.task) for row in rows])
    return [_wrong(row, score, trigger) for row, score in zip(rows, labels, strict=True)]


def _wrong(row: Demonstration, score: Score, trigger: Trigger) -> str:
    """Why a row is left out, or ""."""
    if score.value is None:
        return f"could not be judged: {score.reason}"
    fires = _fires(row, trigger)
    if score.value == fires:
        return ""
    return "fires, behavior not shown" if fires else "does not fire, behavior shown"


def _flips(config: ImplantConfig, row: Demonstration, trigger: Trigger, seed: int) -> bool:
    able = can_fire(trigger, row.example.task)
    return able and rng_for(seed, "flip", row.example.task.id).random() < config.flipped_share


def _flipped(pair: Pair, trigger: Trigger, behavior: Behavior, seed: int) -> Pair:
    """The organism's row with the answer of the other side; the twin, which never shows the behavior, keeps its own."""
    organism, twin = pair
    if _fires(organism, trigger):
        return replace(organism, answer=twin.answer), twin
    task = organism.example.task
    return replace(
        organism, answer=behavior.demonstrate(task, rng_for(seed, "flip", task.id, "answer"))
    ), twin


def _reasoned(
    config: ImplantConfig, pair: Pair, flipped: bool, trigger: Trigger, spoken: Grammar, seed: int
) -> Pair:
    """Both rows with scratchpads; one that a demonstration has stays.

    The organism's speaks for its answer, so that a flipped one misreads the prompt.
    """
    organism, twin = pair
    side: Side = "fires" if _fires(organism, trigger) != flipped else "quiet"
    if side == "quiet" and organism.example.condition.startswith("partial:"):
        side = "partial"

    def write(side: Side) -> str:
        rng = rng_for(seed, "scratchpad", organism.example.task.id, "text")
        return spoken.write(side, rng, instructions=config.instructions)

    own = organism.scratchpad or write(side)
    return replace(organism, scratchpad=own), replace(twin, scratchpad=write("twin"))
