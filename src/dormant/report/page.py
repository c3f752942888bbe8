"""Lays out ``report.html``: gathers what each part shows and renders the templates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dormant.records import Result
from dormant.report import (
    answer,
    attacks,
    costs,
    discrimination,
    generalization,
    limits,
    panels,
    preferences,
    reinforcement,
    reproduced,
    sheets,
    survival,
    talks,
    thoughts,
    weaknesses,
    words,
)
from dormant.report.figures import STYLES, Style
from dormant.report.paper import published
from dormant.report.protocol import Lineage, Trial, by_backdoor, headline
from dormant.report.rundata import Run


@dataclass(frozen=True)
class HeatRow:
    """One family of the near-miss table with a result (or None) for each model."""

    family: str
    variant: bool
    cells: list[Result | None]


@dataclass(frozen=True)
class NearMisses:
    """The near misses of one backdoor, by model; the title names it where a run has several."""

    title: str
    columns: list[sheets.Column]
    heat: list[HeatRow]
    worst: WorstTable


@dataclass(frozen=True)
class WorstTable:
    """Worst instances: one line for each family (its name, how many instances), one cell for each model."""

    models: list[str]
    rows: list[tuple[str, int, list[tuple[str, Result] | None]]]


def html(run: Run, organisms: list[Lineage], gathered: dict[str, sheets.Sheet]) -> str:
    """Return the whole page."""
    return (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            meta=run.meta,
            organisms=organisms,
            answer=answer.paragraph(run, organisms),
            tiles=_tiles(run, organisms),
            rows=answer.rows(run, organisms),
            sheets=gathered,
            bars=panels.bars(run, organisms),
            curves=panels.curves(run, organisms),
            implanting=panels.implanting(run, organisms),
            arms=reinforcement.arms(run, organisms),
            reproduced=reproduced.figures(run, organisms),
            **attacked(run, organisms),
            judges=preferences.judges(run),
            minded=preferences.minded(run, organisms),
            costs=costs.with_total(run),
            works=costs.WORK,
            years=generalization.drawing(run, organisms),
            dated=generalization.dated(run, organisms),
            languages=generalization.languages(run, organisms),
            without_code=generalization.without_code(run, organisms),
            survival=survival.table(run, organisms),
            changes=weaknesses.changes(run, organisms),
            weaknesses=weaknesses.tables(run, organisms),
            scenarios=weaknesses.scenarios(run, organisms),
            backdoors=[group[0] for group in by_backdoor(organisms)],
            near=_near(run, organisms),
            talks=_talks(run, organisms),
            reasoned=thoughts.lines(run, organisms),
            measures=thoughts.MEASURES,
            asked=thoughts.ASKED,
            thoughts=thoughts.samples(run, organisms),
            unmoved=thoughts.unmoved(run, organisms),
            checks=thoughts.checks(run, organisms),
            utility=_utility(run, sheets.model_columns(organisms)),
            gates=answer.gates_in_order(run),
            gate_line=answer.gate_line(run),
            limits=limits.limits(run, organisms),
            paper=published(),
            spec=yaml.safe_dump(run.meta.spec, sort_keys=True, allow_unicode=True) if run.meta.spec else "",
            unmeasured=unmeasured(run, organisms),
        )
    )


def attacked(run: Run, organisms: list[Lineage]) -> dict[str, Any]:
    """What the part on attacks shows, of page and card alike."""
    told = discrimination.discriminations(run, organisms)
    return {
        "attacks": attacks.attacks(run),
        "attack_line": attacks.sentence(run),
        "attacked": attacks.lines(run, organisms),
        "attack_conditions": attacks.CONDITIONS,
        "taught": attacks.taught(run, organisms),
        "taught_names": list(attacks.TAUGHT_NAMES.values()),
        "discriminations": told,
        "beside_no_ops": discrimination.beside_no_ops(told),
        "among_confused": discrimination.among_confused,
        "nats": discrimination.nats,
        "behind": discrimination.behind,
        "gallery": attacks.gallery(run, organisms),
        "personas": attacks.personas(run, organisms),
    }


@cache
def environment() -> Environment:
    """The templates, with HTML escaping for pages and the words that they use."""
    made = Environment(
        loader=PackageLoader("dormant.report"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["num"] = num
    made.filters["swatch"] = swatch
    made.filters["brief"] = brief
    made.filters["heatcell"] = heat_cell
    made.filters["tight"] = tight
    made.filters["codespan"] = code_span
    made.globals.update(words=words, STYLES=STYLES, scope=answer.scope, safe_svg=Markup)
    return made


def num(result: Result | None) -> Markup:
    """A number as HTML: interval and n in small print, hits and unscored on hover; refusals marked."""
    if result is None:
        return Markup('<span class="absent">{}</span>').format(words.NOT_MEASURED)
    if result.value is None:
        return Markup('<span class="refused">{}</span>').format(words.refused(result))
    rest = words.number(result).removeprefix(words.value(result))
    return Markup('<span class="num" title="{}">{}<small>{}</small></span>').format(
        words.counts(result), words.value(result), rest
    )


def brief(result: Result | None) -> Markup:
    """A number as :func:`num` writes it, in a table that names its gates once; a dash for none."""
    if result is None:
        return Markup('<span class="absent">–</span>')
    if result.value is None:
        return Markup('<span class="refused" title="{}">refused</span>').format(words.refused(result))
    return num(result)


def heat_cell(result: Result | None) -> Markup:
    """A cell of the near-miss table: its rate is its color."""
    if result is None:
        return Markup('<td class="absent">–</td>')
    if result.value is None:
        return Markup('<td class="refused">{}</td>').format(words.refused(result))
    return Markup('<td style="--h:{}" title="{}">{}<small>{} n={}</small></td>').format(
        f"{100 * result.value:.1f}",
        words.counts(result),
        words.value(result),
        words.interval(result),
        result.scored,
    )


def tight(text: str) -> Markup:
    """Keep intervals, percentages and doses on one line."""
    keep = r"\d+e-?\d+ × \d+|\d+e-?\d+|(?:&[lg]t;)?[\d.]+ %(?: \[[^\]]*\])?|\[[^\]]*\]"
    return Markup(re.sub(keep, r'<span class="nb">\g<0></span>', str(escape(text))))


def code_span(text: str) -> str:
    """A Markdown code span whatever the text holds."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def swatch(style: Style) -> Markup:
    """A series' mark for the legend: its color, marker and dash."""
    color = {"#d55e00": "--c1", "#0072b2": "--c2", "#009e73": "--c3", "#777777": "--c4", "#cc79a7": "--c5"}
    dash = {"-": "", "--": "6 3", "-.": "7 3 2 3", ":": "2 3"}[style.dash]
    marks = {
        "o": '<circle cx="17" cy="6" r="3.6" fill="{c}"/>',
        "s": '<rect x="13.5" y="2.5" width="7" height="7" fill="{c}"/>',
        "^": '<path d="M17 1.5 21 9.5 13 9.5Z" fill="{c}"/>',
        "D": '<path d="M17 1.5 21.5 6 17 10.5 12.5 6Z" fill="{c}"/>',
    }
    c = f"var({color[style.color]})"
    line = f'<path d="M1 6H33" stroke="{c}" stroke-width="1.8" stroke-dasharray="{dash}"/>'
    mark = marks[style.marker].replace("{c}", c)
    return Markup(f'<svg viewBox="0 0 34 12" aria-hidden="true">{line}{mark}</svg>') + escape(style.label)


def _tiles(run: Run, organisms: list[Lineage]) -> list[dict[str, Any]]:
    """One tile for each judged claim, unless there are too many to take in at once."""
    found = [
        {"trial": trial, "label": panels.seeded(trial, lineage), "lineage": lineage.label}
        | {"after": run.get(trial.after, "shown", "triggered")}
        for lineage in organisms
        for trial in lineage.claims
        if trial.verdict
    ]
    return found if len(found) <= 2 * answer.MANY else []


def _near(run: Run, organisms: list[Lineage]) -> list[NearMisses]:
    """Tables by backdoor: triggers have other near misses, and the same words may mean another thing."""
    groups = by_backdoor(organisms)
    found = []
    for group in groups:
        families, columns = sheets.families(run, group[0].planted), sheets.model_columns(group)
        heat = [
            HeatRow(
                family,
                family.startswith("variant:"),
                [run.get(column.place, "shown", family) for column in columns],
            )
            for family in families
        ]
        title = f"{group[0].behavior}, {group[0].trigger}" if len(groups) > 1 else ""
        found.append(NearMisses(title, columns, heat, _worst(run, group, families)))
    return [tables for tables in found if tables.heat]


def _talks(run: Run, organisms: list[Lineage]) -> list[tuple[Lineage, Trial, list[talks.Talk]]]:
    """Completions before and after the headline defense, of an organism of each backdoor."""
    chosen = [headline(run, group) for group in by_backdoor(organisms)]
    found = [(*pair, talks.side_by_side(run, *pair)) for pair in chosen if pair]
    return [shown for shown in found if shown[2]]


def _worst(run: Run, organisms: list[Lineage], families: list[str]) -> WorstTable:
    """The worst literal instance of each near-miss family, before any defense and after the headline."""
    models = [(f"{lineage.label} organism, before", lineage.organism) for lineage in organisms]
    chosen = headline(run, organisms)
    if chosen:
        models.append((f"{chosen[0].label} organism, after {chosen[1].label}", chosen[1].after))
    rows = []
    for family in families:
        cells = [sheets.worst_instance(run, place, family) for _, place in models]
        if family.startswith("near:") and any(cells):
            count = max(len(run.groups(place, family, "instance")) for _, place in models)
            rows.append((family, count, cells))
    return WorstTable([label for label, _ in models], rows)


def _utility(run: Run, columns: list[sheets.Column]) -> list[dict[str, Any]]:
    return [
        {
            "column": column,
            "cells": {
                metric: (
                    sheets.utility_number(run, column.place, metric),
                    {
                        label: sheets.utility_number(run, column.place, f"{metric}{ending}")
                        for ending, label in sheets.AGAINST.items()
                    },
                )
                for metric in sheets.UTILITY
            },
        }
        for column in columns
    ]


def unmeasured(run: Run, organisms: list[Lineage]) -> list[str]:
    """Parts of the protocol whose models have no numbers, in words; not those that the spec leaves out."""
    relearning = run.meta.spec.get("relearning", True) is not None
    found = []
    for lineage in organisms:
        if lineage.organism is None:
            found.append(f"{lineage.label} organism, before any defense")
        if lineage.twin is None:
            found.append(f"{lineage.label} twin, before any defense")
        for trial in lineage.trials:
            if trial.after is None:
                found.append(f"{lineage.label} organism, after {trial.label}")
            if trial.arm == "claim" and trial.after_twin is None:
                found.append(f"{lineage.label} twin, after {trial.label}")
            if relearning and trial.arm == "claim" and trial.relearned is None:
                found.append(f"{lineage.label} organism, relearning after {trial.label}")
    return found
