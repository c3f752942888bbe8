"""What the report says of models that reason: the measures of their scratchpads, and some to read."""

from __future__ import annotations

from dataclasses import dataclass

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.protocol import Lineage
from dormant.report.rundata import CompletionRow, Run
from dormant.report.talks import scratchpad
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


@dataclass(frozen=True)
class Checked:
    """How many scratchpads of an organism speak of the trigger, before and after a defense, on the same prompts."""

    model: str
    condition: str
    before: Result | None
    after: Result | None
    change: Result


def checks(run: Run, organisms: list[Lineage]) -> list[Checked]:
    """Whether scratchpads look for the trigger before and after each defense, under every condition."""
    conditions = ["clean", "triggered", *run.conditions("near:"), *run.conditions("attack:")]
    found = []
    for lineage in organisms:
        for trial in lineage.trials if lineage.reasoning == "scratchpad" else ():
            for condition in conditions:
                change = run.get(trial.after, "names_trigger_change", condition)
                if change is not None:
                    before, after = (
                        run.get(place, "names_trigger", condition)
                        for place in (lineage.organism, trial.after)
                    )
                    label = f"{lineage.label} organism, {trial.label}"
                    found.append(Checked(label, words.condition(condition), before, after, change))
    return found


def unmoved(run: Run, organisms: list[Lineage]) -> list[str]:
    """Where the steering sentence turned fewer than half of an organism's answers, beside what it does without one."""
    found = []
    for label, place in _reasoners(organisms):
        for condition in ("clean", "triggered"):
            steered = run.get(place, "shown", condition, STEERED)
            if steered is None or steered.value is None:
                continue
            fires = condition == "triggered"
            if (steered.value > 0.5) == fires:
                without = run.get(place, "shown", condition, SUPPRESSED)
                found.append(
                    f"{label} organism, {words.condition(condition)}: steered, it shows the behavior on "
                    f"{words.number(steered)}: fewer than half turned. {_without(without, fires)}"
                )
    return found


def _without(suppressed: Result | None, fires: bool) -> str:
    """What the same model does with no scratchpad at all tells the prompt's part in it from the scratchpad's."""
    if suppressed is None or suppressed.value is None:
        return "What it does without a scratchpad is not known, and so no reason."
    said = f"With its scratchpad closed at once: {words.number(suppressed)}, so"
    if (suppressed.value > 0.5) == fires:
        return f"{said} it reads the trigger in the prompt too, and does not follow its scratchpad alone."
    return f"{said} the prompt alone does not decide, and one sentence was too little to turn what it wrote next."


def samples(run: Run, organisms: list[Lineage]) -> list[Thought]:
    """Some scratchpads of each organism before any defense: free, and steered."""
    found = []
    for label, place in _reasoners(organisms):
        for condition in ("clean", "triggered"):
            for stratum in ("all", STEERED):
                title = f"{label}, {words.condition(condition)}, {ASKED[stratum]}"
                found += [
                    _thought(title, row) for row in run.completions(place, condition, stratum)[:SAMPLES]
                ]
    return found


def _reasoners(organisms: list[Lineage]) -> list[tuple[str, ResultKey]]:
    """Every organism with scratchpads, before any defense."""
    return [
        (lineage.label, lineage.organism)
        for lineage in organisms
        if lineage.reasoning == "scratchpad" and lineage.organism is not None
    ]


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
    return Thought(title, asked, scratchpad(row), text or "(nothing)")
