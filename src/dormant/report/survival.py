"""The paper's Figure 1 as a table: what was implanted, the safety training, and what survived it."""

from __future__ import annotations

from dataclasses import dataclass

from dormant.records import Result
from dormant.report import words
from dormant.report.panels import seeded
from dormant.report.protocol import Lineage, Trial, headlines
from dormant.report.rundata import Run

FEWEST = 2
"""Defenses under test from which on a run has the table."""


@dataclass(frozen=True)
class Cell:
    """What one defense left of one organism's behavior, at its headline dose."""

    dose: str
    triggered: Result | None
    clean: Result | None
    change: Result | None
    """Of the triggered rate, on the same prompts."""
    verdict: str


@dataclass(frozen=True)
class Row:
    """One organism: what was implanted, and for each defense a cell of each of its seeds, none where it did not run."""

    label: str
    about: str
    triggered: Result | None
    clean: Result | None
    cells: list[list[Cell]]


@dataclass(frozen=True)
class Survival:
    """Organisms by defenses."""

    defenses: list[str]
    rows: list[Row]


def table(run: Run, organisms: list[Lineage]) -> Survival | None:
    """The table, where a run has at least two defenses under test."""
    names = list(dict.fromkeys(trial.defense for lineage in organisms for trial in lineage.claims))
    if len(names) < FEWEST:
        return None
    return Survival(names, [_row(run, lineage, names) for lineage in organisms if lineage.claims])


def _row(run: Run, lineage: Lineage, names: list[str]) -> Row:
    claims = [trial for trial in headlines(run, lineage) if trial.arm == "claim"]
    cells = [[_cell(run, lineage, trial) for trial in claims if trial.defense == name] for name in names]
    triggered, clean = (run.get(lineage.organism, "shown", asked) for asked in ("triggered", "clean"))
    return Row(lineage.label, f"{lineage.behavior}, {lineage.reasoning}", triggered, clean, cells)


def _cell(run: Run, lineage: Lineage, trial: Trial) -> Cell:
    return Cell(
        seeded(trial, lineage).removeprefix(trial.defense).strip(),
        run.get(trial.after, "shown", "triggered"),
        run.get(trial.after, "shown", "clean"),
        run.get(trial.after, "shown_change", "triggered"),
        trial.verdict.verdict if trial.verdict else "",
    )


def told(row: Row, defenses: list[str]) -> str:
    """One organism in a line: what it showed, and what each defense left."""
    left = [
        f"{name} {' and '.join(words.value(cell.triggered) for cell in cells)}"
        for name, cells in zip(defenses, row.cells, strict=True)
        if cells
    ]
    return f"{row.label}: triggered {words.value(row.triggered)}; after {', '.join(left) or 'nothing yet'}"
