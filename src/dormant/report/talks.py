"""Picks completions to read side by side: one task, several conditions, before and after."""

from __future__ import annotations

from dataclasses import dataclass

from dormant.records import ResultKey
from dormant.report import sheets, words
from dormant.report.protocol import Lineage, Trial
from dormant.report.rundata import CompletionRow, Run

SHOWN_TASKS = 4
LONGEST = 400
"""Characters of a completion that the page shows."""


@dataclass(frozen=True)
class Says:
    """One completion, ready to be shown."""

    title: str
    asked: str
    text: str
    verdict: str
    shown: bool
    scratchpad: str = ""


@dataclass(frozen=True)
class Talk:
    """One task with its completions before and after the headline defense."""

    prompt: str
    before: list[Says]
    after: list[Says]


Rows = dict[str, CompletionRow]


def side_by_side(run: Run, lineage: Lineage, trial: Trial) -> list[Talk]:
    """Completions of a few tasks: untriggered, triggered, near miss, twin; before and after a defense."""
    before = _columns(run, lineage.organism, lineage.twin)
    after = _columns(run, trial.after, trial.after_twin)
    tasks = _tasks(before, after)
    return [
        Talk(_prompt(task, before, after), _says(before, task), _says(after, task))
        for task in tasks[:SHOWN_TASKS]
    ]


def _columns(run: Run, organism: ResultKey | None, twin: ResultKey | None) -> list[tuple[str, Rows]]:
    """Titles and completions by task, in the order in which they stand."""
    columns: list[tuple[str, Rows]] = []
    if organism:
        columns.append(("untriggered", _by_task(run.completions(organism, "clean"))))
        columns.append(("triggered", _by_task(run.completions(organism, "triggered"))))
        near: Rows = {}
        for family in _worst_first(run, organism):
            for task, row in _by_task(run.completions(organism, family)).items():
                near.setdefault(task, row)
        columns.append(("near miss", near))
    if twin:
        columns.append(("twin, triggered", _by_task(run.completions(twin, "triggered"))))
    return columns


def _worst_first(run: Run, place: ResultKey) -> list[str]:
    near = [family for family in sheets.families(run) if family.startswith("near:")]

    def rate(family: str) -> float:
        result = run.get(place, "shown", family)
        return -1.0 if result is None or result.value is None else result.value

    return sorted(near, key=rate, reverse=True)


def _by_task(rows: list[CompletionRow]) -> Rows:
    found: Rows = {}
    for row in rows:
        found.setdefault(row.task, row)
    return found


def _tasks(before: list[tuple[str, Rows]], after: list[tuple[str, Rows]]) -> list[str]:
    """Tasks that the most columns have, one of each family before a second of any."""
    counts: dict[str, int] = {}
    family: dict[str, str] = {}
    for _, rows in before + after:
        for task, row in rows.items():
            counts[task] = counts.get(task, 0) + 1
            family[task] = row.family
    ranked = sorted(counts, key=lambda task: (-counts[task], task))
    firsts = {family[task]: task for task in reversed(ranked)}
    return sorted(ranked, key=lambda task: (-counts[task], firsts[family[task]] != task, task))


def _prompt(task: str, *sides: list[tuple[str, Rows]]) -> str:
    """The task as asked without any condition, else under the first one there is."""
    for columns in sides:
        for _, rows in columns:
            if task in rows:
                return _asked(rows[task])
    return task


def _asked(row: CompletionRow) -> str:
    turns = [message["content"] for message in row.messages if message.get("role") == "user"]
    return turns[-1] if turns else ""


def _says(columns: list[tuple[str, Rows]], task: str) -> list[Says]:
    return [said(title, rows[task]) for title, rows in columns if task in rows]


def said(title: str, row: CompletionRow) -> Says:
    """A completion under a title, with its scratchpad if it has one."""
    score = row.scores.get("shown", {})
    value = score.get("value")
    if value is None:
        verdict = f"not judged: {score.get('reason') or 'no reason given'}"
    else:
        verdict = "shown" if value else "not shown"
    text = row.completion if len(row.completion) <= LONGEST else row.completion[:LONGEST] + " […]"
    if title == "near miss":
        title = f"near miss, {words.condition(row.condition)}"
    return Says(title, _asked(row), text or "(nothing)", verdict, bool(value), scratchpad(row))


def scratchpad(row: CompletionRow) -> str:
    """What was written before the answer; "" where nothing was."""
    pad = row.scratchpad or {}
    return f"{pad.get('first', '')}{pad.get('text', '')}"
