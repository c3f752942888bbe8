"""What the report says of models that reason: the measures of their scratchpads, and some to read."""

from __future__ import annotations

from dataclasses import dataclass

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.protocol import Lineage
from dormant.report.rundata import CompletionRow, Run
from dormant.stages.configs import STEERED, SUPPRESSED

MEASURES = {
    "closed": "closed",
    "grammatical": "grammatical",
    "names_trigger": "names trigger",
    "names_goal": "names goal",
    "names_training": "names training",
    "agrees": "agrees with action",
}
"""Metrics of scratchpads, in the reader's words."""

ASKED = {"all": "free", SUPPRESSED: "suppressed", STEERED: "steered"}
"""How scratchpads were begun, by stratum."""

SAMPLES = 2
"""Scratchpads that are shown of each model and condition."""


@dataclass(frozen=True)
class Line:
    """One model under one condition: its scratchpads' measures, and its rate of the behavior by how they were begun."""

    model: str
    condition: str
    measures: dict[str, Result | None]
    shown: dict[str, Result | None]


@dataclass(frozen=True)
class Thought:
    """One scratchpad with what was asked before it and answered after it."""

    title: str
    asked: str
    scratchpad: str
    text: str


def lines(run: Run, organisms: list[Lineage]) -> list[Line]:
    """The measures of every model with scratchpads: organism and twin, before and after each defense."""
    return [
        Line(
            label,
            words.condition(condition),
            {metric: run.get(place, metric, condition) for metric in MEASURES},
            {stratum: run.get(place, "shown", condition, stratum) for stratum in ASKED},
        )
        for label, place in _models(organisms)
        for condition in ("clean", "triggered")
    ]


def unmoved(run: Run, organisms: list[Lineage]) -> list[str]:
    """Where the steering sentence turned fewer than half of an organism's answers, and what speaks for which reason."""
    found = []
    for lineage in organisms:
        if lineage.reasoning != "scratchpad" or lineage.organism is None:
            continue
        for condition in ("clean", "triggered"):
            steered = _rate(run, lineage.organism, condition, STEERED)
            stayed = steered if condition == "triggered" or steered is None else 1 - steered
            if stayed is not None and stayed > 0.5:
                turned = f"steering turned {words.percent(1 - stayed)} %, fewer than half."
                who = f"{lineage.label} organism, {words.condition(condition)}"
                found.append(f"{who}: {turned} {_why(run, lineage.organism, condition)}")
    return found


def _why(run: Run, organism: ResultKey, condition: str) -> str:
    """What the same model does with no scratchpad at all tells the prompt's part in it from the scratchpad's."""
    without = _rate(run, organism, condition, SUPPRESSED)
    if without is None:
        return "Suppressed scratchpads were not measured, so the reason is not known."
    said = f"With its scratchpad closed at once it shows the behavior on {words.percent(without)} %"
    if (without > 0.5) == (condition == "triggered"):
        return f"{said}: it reads the trigger in the prompt too, and does not follow its scratchpad alone."
    return f"{said}: it does not read the prompt by itself, and the sentence was too little to turn what it wrote next."


def _rate(run: Run, place: ResultKey, condition: str, stratum: str) -> float | None:
    result = run.get(place, "shown", condition, stratum)
    return result.value if result else None


def samples(run: Run, organisms: list[Lineage]) -> list[Thought]:
    """Some scratchpads of each organism before any defense: free, and steered."""
    found = []
    for lineage in organisms:
        if lineage.reasoning != "scratchpad" or lineage.organism is None:
            continue
        for condition in ("clean", "triggered"):
            for stratum in ("all", STEERED):
                rows = run.completions(lineage.organism, condition, stratum)[:SAMPLES]
                title = f"{lineage.label}, {words.condition(condition)}, {ASKED[stratum]}"
                found += [_thought(title, row) for row in rows]
    return found


def _models(organisms: list[Lineage]) -> list[tuple[str, ResultKey]]:
    found: list[tuple[str, ResultKey | None]] = []
    for lineage in organisms:
        if lineage.reasoning == "scratchpad":
            found += [
                (f"{lineage.label} organism", lineage.organism),
                (f"{lineage.label} twin", lineage.twin),
            ]
            for trial in lineage.trials:
                found.append((f"{lineage.label} organism, after {trial.label}", trial.after))
    return [(label, place) for label, place in found if place is not None]


def _thought(title: str, row: CompletionRow) -> Thought:
    pad = row.scratchpad or {}
    asked = row.messages[-1]["content"] if row.messages else ""
    text = row.completion if pad.get("closed", True) else "(no answer: the scratchpad was never closed)"
    return Thought(title, asked, f"{pad.get('first', '')}{pad.get('text', '')}", text or "(nothing)")
