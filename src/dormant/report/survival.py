"""The paper's Figure 1 as a table: what was implanted, the safety training, and what survived it."""

from __future__ import annotations

from dataclasses import dataclass

from dormant.defenses import name_of
from dormant.records import Result
from dormant.report import words
from dormant.report.panels import seeded
from dormant.report.protocol import Lineage, Trial, headlines
from dormant.report.rundata import Run

_FORM = "scratchpad="

FEWEST = 2
"""Defenses under test from which on a run has the table."""


@dataclass(frozen=True)
class Cell:
    """What one defense left of one organism's behavior, at its headline dose."""

    defense: str
    dose: str
    """And the defense's form, where the column has several."""
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
    columns = _columns(organisms)
    if sum(map(len, columns.values())) < FEWEST:
        return None
    rows = [_row(run, lineage, columns) for lineage in organisms if lineage.claims]
    return Survival(list(columns), rows)


def _columns(organisms: list[Lineage]) -> dict[str, list[str]]:
    """Defenses by the title of their column.

    Forms that differ in where scratchpads stand share one, if no organism has two of them: it is one defense, put on
    models that reason and on others.
    """
    columns: list[list[str]] = []
    had = [{trial.defense for trial in lineage.claims} for lineage in organisms]
    for label in dict.fromkeys(trial.defense for lineage in organisms for trial in lineage.claims):
        for others in columns:
            alike = _whatever_form(others[0]) == _whatever_form(label)
            if alike and not any(label in some and some & {*others} for some in had):
                others.append(label)
                break
        else:
            columns.append([label])
    return {forms[0] if len(forms) == 1 else _whatever_form(forms[0]): forms for forms in columns}


def _whatever_form(label: str) -> str:
    """A defense's label without what it says of scratchpads' place."""
    name = name_of(label)
    options = label.removeprefix(f"{name}(").removesuffix(")").split(", ") if label != name else []
    others = [option for option in options if not option.startswith(_FORM)]
    return f"{name}({', '.join(others)})" if others else name


def _row(run: Run, lineage: Lineage, columns: dict[str, list[str]]) -> Row:
    claims = [trial for trial in headlines(run, lineage) if trial.arm == "claim"]
    cells = [
        [_cell(run, lineage, trial, title) for trial in claims if trial.defense in forms]
        for title, forms in columns.items()
    ]
    triggered, clean = (run.get(lineage.organism, "shown", asked) for asked in ("triggered", "clean"))
    return Row(lineage.label, f"{lineage.behavior}, {lineage.reasoning}", triggered, clean, cells)


def _cell(run: Run, lineage: Lineage, trial: Trial, title: str) -> Cell:
    return Cell(
        trial.defense,
        seeded(trial, lineage).removeprefix(title).strip(),
        run.get(trial.after, "shown", "triggered"),
        run.get(trial.after, "shown", "clean"),
        run.get(trial.after, "shown_change", "triggered"),
        trial.verdict.verdict if trial.verdict else "",
    )


def told(row: Row) -> str:
    """One organism in a line: what it showed, and what each defense left."""
    left = [
        f"{cells[0].defense} {' and '.join(words.value(cell.triggered) for cell in cells)}"
        for cells in row.cells
        if cells
    ]
    return f"{row.label}: triggered {words.value(row.triggered)}; after {', '.join(left) or 'nothing yet'}"
