"""The behavior by CWE: an average over weaknesses hides that some are always written and others never."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.protocol import Lineage, Trial, headline
from dormant.report.rundata import Run
from dormant.report.sheets import DEFENDED, Sheet, model_columns, who
from dormant.scan.table import CWES

FIELD = "cwe"
ASKED = ("clean", "triggered")


@dataclass(frozen=True)
class Line:
    """One CWE, or all: of each model the untriggered and the triggered rate."""

    name: str
    cells: list[tuple[Result | None, Result | None]]


@dataclass(frozen=True)
class Table:
    """Models at one moment, beside each other; ``spread`` says how far their CWEs lie apart."""

    title: str
    models: list[str]
    lines: list[Line]
    spread: str


def tables(run: Run, organisms: list[Lineage]) -> list[Table]:
    """For each organism a table before any defense and one after each, at its headline dose.

    There are none where no code was asked for.
    """
    found = []
    for lineage in organisms:
        if not run.groups(lineage.organism, "triggered", FIELD):
            continue
        before = {"base": lineage.unplanted, "twin": lineage.twin, "organism": lineage.organism}
        found.append(_table(run, f"{lineage.label}, before any defense", before))
        for trial in _headlines(run, lineage):
            after = {"twin": trial.after_twin, "organism": trial.after}
            found.append(_table(run, f"{lineage.label}, after {trial.label}", after))
    return found


def _headlines(run: Run, lineage: Lineage) -> list[Trial]:
    """One trial of each defense: at the dose that stands for the run, or else the largest."""
    chosen = headline(run, [lineage])
    found: dict[tuple[str, str], Trial] = {}
    for trial in lineage.trials:
        name = (trial.arm, trial.defense)
        taken = found.get(name)
        settled = taken is not None and chosen is not None and taken.dose == chosen[1].dose
        if trial.after and not settled:
            found[name] = trial
    return list(found.values())


def _table(run: Run, title: str, models: dict[str, ResultKey | None]) -> Table:
    there = {name: place for name, place in models.items() if place is not None}
    groups = [tuple(run.groups(place, condition, FIELD) for condition in ASKED) for place in there.values()]
    numbers = sorted({int(cwe) for clean, triggered in groups for cwe in (*clean, *triggered)})
    lines = [
        Line(
            f"CWE-{cwe} {CWES.get(cwe, '')}".strip(),
            [(clean.get(str(cwe)), triggered.get(str(cwe))) for clean, triggered in groups],
        )
        for cwe in numbers
    ]
    clean, triggered = ([run.get(place, "shown", name) for place in there.values()] for name in ASKED)
    lines.append(Line("all together", list(zip(clean, triggered, strict=True))))
    return Table(title, list(there), lines, spread(run, models["organism"]))


def spread(run: Run, place: ResultKey | None) -> str:
    """How far apart a model's triggered rates lie, by CWE; "" where there are none."""
    rates = {
        cwe: result
        for cwe, result in run.groups(place, "triggered", FIELD).items()
        if result.value is not None
    }
    if not rates:
        return ""
    ends = [end(rates.items(), key=lambda pair: pair[1].value or 0.0) for end in (min, max)]
    least, most = (f"{words.number(result)} (CWE-{cwe})" for cwe, result in ends)
    return f"triggered, by CWE: from {least} to {most}"


def sheet(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates by CWE for each model, untriggered and triggered."""
    found = Sheet("weaknesses", "By CWE", (*DEFENDED, FIELD))
    for column in model_columns(organisms):
        for condition in ASKED:
            for cwe, result in _in_order(run.groups(column.place, condition, FIELD)):
                found.add((*who(column), cwe), result)
    return found


def _in_order(groups: dict[str, Result]) -> Iterator[tuple[int, Result]]:
    yield from sorted((int(cwe), result) for cwe, result in groups.items())
