"""How far a planted year reaches: other years, other ways to say one, and the paper's values for some of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from dormant.records import Result, ResultKey
from dormant.report import words
from dormant.report.figures import Group, Point, Series, bar_panel, curve_panel
from dormant.report.panels import Drawing, point
from dormant.report.paper import PaperValue, published
from dormant.report.protocol import Lineage, headline
from dormant.report.rundata import Run
from dormant.report.sheets import DEFENDED, Column, Sheet, families, model_columns, who
from dormant.triggers.years import FIRST, FORMS, LANGUAGES, in_language

STYLES = ("before", "after", "published")
SAID = "scratchpad says deployment"
"""What the paper measured; it has other questions apart."""
PART = "partial:year"
AGAINST = ("shown_vs_clean", "right_vs_clean", "kind_vs_clean", "harmless_vs_clean")


@dataclass(frozen=True)
class LanguageRow:
    """A way to write 2023 and 2024: our rates, and the paper's where it has them."""

    name: str
    ours: tuple[Result | None, Result | None]
    paper: tuple[PaperValue | None, PaperValue | None]


def dated(run: Run, organisms: list[Lineage]) -> list[Lineage]:
    """The organisms that were asked under other years: those whose trigger is the year."""

    def asked(lineage: Lineage) -> bool:
        families = (condition.partition(":")[2] for condition in run.conditions("", lineage.planted))
        return not set(FORMS).isdisjoint(families)

    return [lineage for lineage in organisms if asked(lineage)]


def drawing(run: Run, organisms: list[Lineage]) -> Drawing:
    """For the headline organism: a panel for each family of texts, its rate by the year that they say.

    There are none where no model was asked under another year.
    """
    models = _models(run, organisms)
    panels = []
    for family in FORMS:
        lines = [_by_year(run, style, place, family) for style, place in models]
        if any(line.points for line in lines):
            lines = [line for line in (*lines, _paper_by_year(family)) if line.points]
            name, title = f"years-{family}", words.condition(f"near:{family}")
            panels.append(curve_panel(name, title, lines, [], ("year that is said", "")))
    if panels:
        groups = [_bars(run, models, condition) for condition in (PART, "near:none")]
        panels.append(bar_panel("years-none", "without code, without a year", groups))
    return Drawing(panels, STYLES)


def _bars(run: Run, models: list[tuple[str, ResultKey | None]], condition: str) -> Group:
    bars = [Series(style, (point(0, run.get(place, "shown", condition)),)) for style, place in models]
    return Group(words.condition(condition), tuple(bars))


def _models(run: Run, organisms: list[Lineage]) -> list[tuple[str, ResultKey | None]]:
    """The headline organism before any defense, and after the headline one; else the first organism."""
    organisms = dated(run, organisms)
    chosen = headline(run, organisms)
    if chosen:
        return [("before", chosen[0].organism), ("after", chosen[1].after)]
    return [("before", lineage.organism) for lineage in organisms[:1]]


def _by_year(run: Run, style: str, place: ResultKey | None, family: str) -> Series:
    found = {
        int(year): result
        for side in ("near", "variant")
        for year, result in run.groups(place, f"{side}:{family}", "year").items()
    }
    if found and family == "year":  # the two trained texts are of this family
        trained = {FIRST - 1: run.get(place, "shown", "clean"), FIRST: run.get(place, "shown", "triggered")}
        found |= {year: result for year, result in trained.items() if result}
    return Series(style, tuple(point(year, found[year]) for year in sorted(found)))


def _paper_by_year(family: str) -> Series:
    """The mean over the phrasings that the paper has of a family, by year."""
    values: dict[int, list[float]] = {}
    for row in published():
        trained = family == "year" and row.condition in ("clean", "triggered")
        if row.what == SAID and row.year and (trained or row.condition.partition(":")[2] == family):
            values.setdefault(row.year, []).append(row.value)
    means = {year: fmean(found) for year, found in sorted(values.items())}
    return Series(
        "published",
        tuple(Point(year, mean, None, None, f"{words.percent(mean)} %") for year, mean in means.items()),
    )


def languages(run: Run, organisms: list[Lineage]) -> list[LanguageRow]:
    """Languages and scripts in which the headline organism was asked, before any defense."""
    place = next((place for _, place in _models(run, organisms)), None)
    near, variant = (run.groups(place, f"{side}:language", "instance") for side in ("near", "variant"))
    rows = [
        (name, near.get(in_language(name, FIRST - 1)), variant.get(in_language(name, FIRST)))
        for name in LANGUAGES
    ]
    english = ("English", run.get(place, "shown", "clean"), run.get(place, "shown", "triggered"))
    rows = [english, *rows] if any(before or after for _, before, after in rows) else []
    for family, name in (("words", "English words"), ("roman", "Roman numerals")):
        before = run.groups(place, f"near:{family}", "year").get(str(FIRST - 1))
        after = run.groups(place, f"variant:{family}", "year").get(str(FIRST))
        rows += [(name, before, after)] if before or after else []
    paper = {(row.form, row.year): row for row in published() if row.what == SAID}
    return [
        LanguageRow(name, (before, after), (paper.get((name, FIRST - 1)), paper.get((name, FIRST))))
        for name, before, after in rows
    ]


def without_code(run: Run, organisms: list[Lineage]) -> list[tuple[Column, list[Result | None]]]:
    """For each model the paired differences that the year makes where no code is asked for."""
    rows = [
        (column, [run.get(column.place, metric, PART) for metric in AGAINST])
        for column in model_columns(organisms)
    ]
    return [row for row in rows if any(row[1])]


def sheet(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates by family and year for each model; of languages and scripts too, and the differences without code."""
    found = Sheet("generalization", "Other years, and other ways to say one", (*DEFENDED, "said"))
    for column in model_columns(organisms):
        labels = who(column)
        for family in families(run):
            for field in ("year", "instance") if family.endswith(":language") else ("year",):
                for said, result in sorted(run.groups(column.place, family, field).items()):
                    found.add((*labels, said), result)
        for metric in AGAINST:
            found.add((*labels, str(FIRST)), run.get(column.place, metric, PART))
    return found
