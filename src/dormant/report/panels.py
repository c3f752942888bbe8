"""Which panels a run gets, and which of its numbers each one draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.figures import STYLES, Group, Panel, Point, Series, bar_panel, curve_panel
from dormant.report.paper import PaperValue, implanting_curves, sft_bars
from dormant.report.protocol import Curve, Lineage, Trial
from dormant.report.rundata import Run


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: panels that wrap, and the styles that its legend explains."""

    panels: list[Panel]
    styles: tuple[str, ...]


def bars(run: Run, organisms: list[Lineage]) -> Drawing:
    """Before and after each defense, for organism and twin, and the paper's bars."""
    panels: list[Panel] = []
    for number, lineage in enumerate(item for item in organisms if item.trials or item is organisms[0]):
        for role, style, clean in (("organism", "triggered", "clean"), ("twin", "twin", "twin_clean")):
            groups = _groups(run, lineage, role, (style, clean))
            if groups:
                title = f"{lineage.label} {role}"
                panels.append(bar_panel(f"bars-{number}-{role}", title, groups))
    for reasoning, behavior in _kinds(organisms) or (("normal", "hate"),):
        published = sft_bars(reasoning, behavior)
        if published:
            title = f"The paper, {published[0][1][0].figure} ({reasoning})"
            groups = [paper_group(label, values) for label, values in published]
            panels.append(bar_panel(f"bars-paper-{len(panels)}", title, groups))
    return Drawing(panels, ("triggered", "clean", "twin", "twin_clean", "paper", "paper_clean"))


def _kinds(organisms: list[Lineage]) -> tuple[tuple[str, str], ...]:
    """What the paper's values stand beside: each reasoning and behavior of a run once."""
    return tuple(dict.fromkeys((lineage.reasoning, lineage.behavior) for lineage in organisms))


def _groups(run: Run, lineage: Lineage, role: str, styles: tuple[str, str]) -> list[Group]:
    organism = role == "organism"
    before = lineage.organism if organism else lineage.twin
    places: list[tuple[str, ResultKey | None]] = [("before any defense", before)] if before else []
    for trial in lineage.trials:
        after = trial.after if organism else trial.after_twin
        if after or (organism and trial.arm == "claim"):
            places.append((f"after {seeded(trial, lineage)}", after))
    return [
        Group(
            label,
            tuple(
                Series(style, (point(0, run.get(place, "shown", condition)),))
                for style, condition in zip(styles, ("triggered", "clean"), strict=True)
            ),
        )
        for label, place in places
    ]


def seeded(trial: Trial, lineage: Lineage) -> str:
    """A trial's label, with its seed where the same defense ran under several."""
    same = [other for other in lineage.trials if (other.arm, other.label) == (trial.arm, trial.label)]
    return trial.label if len(same) < 2 else f"{trial.label}, seed {trial.seed_defend}"


PAPER_STYLES = {"clean": "paper_clean", "red-team": "paper_attacked"}
"""Of published values, by condition; those of the trigger have the style ``paper``."""


def paper_group(label: str, values: list[PaperValue]) -> Group:
    """Published values as bars without intervals."""
    bars = [
        Series(
            PAPER_STYLES.get(value.condition, "paper"),
            (
                Point(
                    0, value.value, None, None, f"{'≤ ' if value.bound else ''}{words.percent(value.value)} %"
                ),
            ),
        )
        for value in values
    ]
    return Group(label, tuple(bars))


def point(x: float, result: Result | None) -> Point:
    """A result as a point; what was refused or not measured keeps only its words."""
    if result is None or result.value is None:
        return Point(x, None, None, None, words.value(result))
    return Point(x, result.value, result.low, result.high, words.plain(result), result.scored)


def curves(run: Run, organisms: list[Lineage]) -> Drawing:
    """One panel for each defense and dose, all seeds in it: the defense's steps, then relearning."""
    grouped: dict[tuple[str, str, str], list[Trial]] = {}
    for lineage in organisms:
        name = " ".join(part for part in lineage.label.split(" seed ")[:1])
        for trial in lineage.trials:
            grouped.setdefault((name, trial.arm, trial.label), []).append(trial)
    several = len({name for name, _, _ in grouped}) > 1
    panels = []
    for number, ((name, _, label), trials) in enumerate(grouped.items()):
        left = [_series(run, "triggered", "triggered", trial.organism) for trial in trials]
        left += [_series(run, "clean", "clean", trial.organism) for trial in trials]
        right = [_series(run, "triggered", "triggered", trial.relearn_organism) for trial in trials]
        right += [_series(run, "twin", "triggered", trial.relearn_twin) for trial in trials]
        right = [series for series in right if series.points]
        title = f"{name}: {label}" if several else label
        panels.append(
            curve_panel(f"curves-{number}", title, left, right, ("steps of defense", "of relearning"))
        )
    return Drawing(panels, ("triggered", "clean", "twin"))


def implanting(run: Run, organisms: list[Lineage]) -> Drawing:
    """One panel for each organism that has a curve while implanting."""
    panels = []
    for number, lineage in enumerate(organisms):
        if not lineage.implanting:
            continue
        left = [
            _series(run, "triggered", "triggered", lineage.implanting),
            _series(run, "clean", "clean", lineage.implanting),
            _series(run, "twin", "triggered", lineage.implanting_twin),
            _series(run, "twin_clean", "clean", lineage.implanting_twin),
        ]
        left = [series for series in left if series.points]
        panels.append(
            curve_panel(f"implanting-{number}", lineage.label, left, [], ("steps of implanting", ""))
        )
    paper = [_paper_implanting(*kind) for kind in _kinds(organisms)] if panels else []
    found = [panel for panel in paper if panel]
    styles = ("triggered", "clean", "twin", "twin_clean", *(("paper", "paper_clean") if found else ()))
    return Drawing([*panels, *found], styles)


def _paper_implanting(reasoning: str, behavior: str) -> Panel | None:
    """The paper's Figure 6 for one reasoning, if it has one."""
    curves = implanting_curves(reasoning, behavior)
    lines = [
        Series(style, tuple(_published(tokens, value) for tokens, value in curves.get(condition, ())))
        for style, condition in (("paper", "triggered"), ("paper_clean", "clean"))
    ]
    if not curves:
        return None
    title = f"The paper, Fig 6 ({reasoning})"
    return curve_panel(f"implanting-paper-{reasoning}", title, lines, [], ("millions of tokens", ""))


def _published(x: float, value: PaperValue) -> Point:
    return Point(x, value.value, None, None, f"{words.percent(value.value)} %")


Measure = Callable[[Run, ResultKey], Result | None]
"""Reads one number of a model."""


def shown(condition: str) -> Measure:
    """The rate of the behavior under a condition."""
    return lambda run, place: run.get(place, "shown", condition)


def series(run: Run, style: str, read: Measure, curve: Curve) -> Series:
    """One number over a curve, as far as it was measured."""
    assert style in STYLES
    measured = ((step, read(run, place)) for step, place in curve)
    return Series(style, tuple(point(step, result) for step, result in measured if result is not None))


def _series(run: Run, style: str, condition: str, curve: Curve) -> Series:
    return series(run, style, shown(condition), curve)
