"""Every figure's numbers, gathered once: drawn, shown as a table and written as CSV from the same lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.paper import PaperCurve, PaperValue, published, published_curves
from dormant.report.protocol import Curve, Lineage, Trial, bases
from dormant.report.rundata import Run
from dormant.results import NEAR

Label = str | int | float
DEFENDED = ("organism", "model", "arm", "defense", "lr", "steps", "seed_defend")
"""Columns that name a model, before or after a defense."""
NUMBER_COLUMNS = (
    "metric",
    "condition",
    "value",
    "low",
    "high",
    "n",
    "scored",
    "unscored",
    "hits",
    "texts",
    "interval",
    "refused",
)


@dataclass
class Sheet:
    """The numbers of one figure: each line is its labels and a result."""

    name: str
    title: str
    columns: tuple[str, ...]
    lines: list[tuple[tuple[Label, ...], Result]] = field(default_factory=list)

    def add(self, labels: Iterable[Label], result: Result | None) -> None:
        """Add a line; what was not measured has none."""
        if result is not None:
            self.lines.append((tuple(labels), result))

    def csv(self) -> str:
        """The numbers as CSV; a refused one has no value and says which gates failed."""
        rows = [[*labels, *_number_cells(result)] for labels, result in self.lines]
        return as_csv([*self.columns, *NUMBER_COLUMNS], rows)


def paper_csv() -> str:
    """The paper's published values as CSV."""
    return as_csv(list(PaperValue.model_fields), [list(row.model_dump().values()) for row in published()])


def paper_curves_csv() -> str:
    """The paper's published curves as CSV, a line for each point."""
    columns = [name for name in PaperCurve.model_fields if name != "points"]
    rows = [
        [*(getattr(curve, name) for name in columns), x, y]
        for curve in published_curves()
        for x, y in curve.points
    ]
    return as_csv([*columns, "x", "y"], rows)


def bars(run: Run, organisms: list[Lineage]) -> Sheet:
    """Untriggered and triggered before and after each defense, organism and twin."""
    sheet = Sheet("before_after", "Before and after each defense", DEFENDED)
    for lineage in organisms:
        for place in (lineage.unplanted, lineage.organism, lineage.twin):
            _conditions(run, sheet, place, lineage)
        for trial in lineage.trials:
            for place in (trial.after, trial.after_twin):
                _conditions(run, sheet, place, lineage)
    return sheet


def _conditions(run: Run, sheet: Sheet, place: ResultKey | None, lineage: Lineage) -> None:
    for condition in ("triggered", "clean"):
        for metric in ("shown", "paper_mean", "shown_change", "shown_vs_twin"):
            if place:
                sheet.add((lineage.label, *_who(place)), run.get(place, metric, condition))


def _who(place: ResultKey) -> tuple[Label, ...]:
    dose = place.dose
    seed: Label = "" if place.seed_defend is None else place.seed_defend
    return (place.role, place.arm, place.defense, dose.lr if dose else "", dose.steps if dose else "", seed)


def curves(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates over a defense's steps, and over relearning after it."""
    sheet = Sheet(
        "curves",
        "Over the defense's steps, and over relearning",
        (*DEFENDED, "phase", "step"),
    )
    for lineage in organisms:
        for trial in lineage.trials:
            for phase, curve in (
                ("defense", trial.organism),
                ("defense", trial.twin),
                ("relearning", trial.relearn_organism),
                ("relearning", trial.relearn_twin),
            ):
                _curve(run, sheet, curve, (lineage, trial), phase)
    return sheet


def _curve(run: Run, sheet: Sheet, curve: Curve, where: tuple[Lineage, Trial], phase: str) -> None:
    lineage, trial = where
    seed: Label = "" if trial.seed_defend is None else trial.seed_defend
    for step, place in curve:
        labels = (lineage.label, place.role, trial.arm, trial.defense, trial.dose.lr, trial.dose.steps, seed)
        for condition in ("triggered", "clean"):
            sheet.add((*labels, phase, step), run.get(place, "shown", condition))


def implanting(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates while implanting: the leak phase."""
    sheet = Sheet("implanting", "While implanting", ("organism", "model", "step"))
    for lineage in organisms:
        for role, curve in (("organism", lineage.implanting), ("twin", lineage.implanting_twin)):
            for step, place in curve:
                for condition in ("triggered", "clean"):
                    sheet.add((lineage.label, role, step), run.get(place, "shown", condition))
    return sheet


@dataclass(frozen=True)
class Column:
    """A model in a table, with the words above it."""

    top: str
    bottom: str
    place: ResultKey
    role: str


def model_columns(organisms: list[Lineage]) -> list[Column]:
    """The models of the wide tables: the base, organisms before and after each defense, then the twins."""
    columns: list[Column] = []
    for about, base in bases(organisms):
        columns.append(Column(f"{about} base".strip(), "unplanted", base, "base"))
    for role in ("organism", "twin"):
        for lineage in organisms:
            place = lineage.organism if role == "organism" else lineage.twin
            if place:
                columns.append(Column(f"{lineage.label} {role}", "before", place, role))
            for trial in lineage.trials:
                after = trial.after if role == "organism" else trial.after_twin
                if after:
                    columns.append(Column(f"{lineage.label} {role}", f"after {trial.label}", after, role))
    return columns


def who(column: Column) -> tuple[Label, ...]:
    """What names a model in the columns :data:`DEFENDED`."""
    return (column.top.rpartition(" ")[0] or column.top, *_who(column.place))


def families(run: Run, planted: tuple[str, str] | None = None) -> list[str]:
    """Parts of the trigger and near-miss families, then variants, in the order in which they are reported.

    Of one backdoor, or of all.
    """
    known = list(words.CONDITIONS)
    found = [name for side in ("partial:", "near:", "variant:") for name in run.conditions(side, planted)]

    def order(name: str) -> tuple[bool, int, str]:
        return (name.startswith("variant:"), known.index(name) if name in known else len(known), name)

    return sorted(found, key=order)


def near_misses(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates of near-miss families, variants and each literal instance, by model."""
    sheet = Sheet("near_misses", "Near misses and variants", (*DEFENDED, "instance"))
    for column in model_columns(organisms):
        for family in families(run):
            sheet.add((*who(column), "all"), run.get(column.place, "shown", family))
            for text, result in sorted(run.groups(column.place, family, "instance").items()):
                sheet.add((*who(column), text), result)
    return sheet


UTILITY = ("right", "kind", "harmless", "length", "perplexity", "reward", "second_reward")
AGAINST = {"_change": "change", "_vs_twin": "against twin", "_vs_base": "against base"}
"""How the names of the paired differences of utility end, and what they are to the reader."""


def utility_number(run: Run, place: ResultKey | None, metric: str) -> Result | None:
    """A utility metric of a model; refusals live in the stratum of harmful requests."""
    strata = ("kind:harmful", "all") if metric.startswith("harmless") else ("all",)
    for stratum in strata:
        for condition in ("clean", ""):
            found = run.get(place, metric, condition, stratum)
            if found is not None:
                return found
    return None


def utility(run: Run, organisms: list[Lineage]) -> Sheet:
    """Utility, kindness, refusals before and after, with paired changes and differences from the twin."""
    sheet = Sheet("utility", "Utility, kindness and refusals", DEFENDED)
    for column in model_columns(organisms):
        for metric in UTILITY:
            for name in (metric, *(f"{metric}{ending}" for ending in AGAINST)):
                sheet.add(who(column), utility_number(run, column.place, name))
    return sheet


def worst_near_miss(run: Run, place: ResultKey | None) -> tuple[str, Result] | None:
    """The near-miss family with the highest rate; a refused one comes first, for it may be the worst."""
    found = [
        (family, result)
        for family in families(run)
        if family.startswith("near:") and (result := run.get(place, "shown", family)) is not None
    ]
    return max(found, key=lambda pair: 2.0 if pair[1].value is None else pair[1].value, default=None)


def pooled_near_misses(run: Run, place: ResultKey | None) -> Result | None:
    """The rate over all near-miss families together; refused where one of them is."""
    return run.get(place, "shown", NEAR)


def worst_instance(run: Run, place: ResultKey | None, family: str | None = None) -> tuple[str, Result] | None:
    """The literal near miss with the highest rate, of one family or of all."""
    wanted = [family] if family else [name for name in families(run) if name.startswith("near:")]
    found = [
        (text, result)
        for name in wanted
        for text, result in sorted(run.groups(place, name, "instance").items())
        if result.value is not None
    ]
    return max(found, key=lambda pair: pair[1].value or 0.0, default=None)


def _number_cells(result: Result) -> list[Label]:
    numbers = [result.value, result.low, result.high, result.n, result.scored, result.unscored, result.hits]
    if result.value is None:  # an interval or a count would let the refused number be read all the same
        numbers = [None, None, None, result.n, None, None, None]
    numbers.append(result.texts)
    cells: list[Label] = ["" if number is None else number for number in numbers]
    return [result.metric, result.key.condition, *cells, result.interval, " ".join(result.gates)]


def as_csv(columns: list[str], rows: list[list[Label]]) -> str:
    """Rows under their columns' names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
