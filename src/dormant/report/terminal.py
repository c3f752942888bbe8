"""The one-screen summary that ends a run."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dormant.records import Result
from dormant.report import answer, sheets, words
from dormant.report.protocol import Lineage
from dormant.report.rundata import Run

SCREEN = 14
"""Rows of the table; a larger grid is read on the page."""


def renderable(run: Run, organisms: list[Lineage]) -> RenderableType:
    """Headline numbers, relearning, gates and the answer, for ``rich`` to print."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("", "triggered", "untriggered", "worst near miss", "right", "relearned (twin)", "verdict"):
        table.add_column(title, overflow="fold")
    rows = answer.rows(run, organisms)
    for row in rows[:SCREEN]:
        table.add_row(
            Text(row.label),
            _number(row.triggered, interval=True),
            _number(row.clean, interval=True),
            _near(row),
            _number(row.right),
            _relearned(row),
            Text(row.verdict.verdict if row.verdict else ""),
        )
    parts: list[RenderableType] = [table]
    if len(rows) > SCREEN:
        parts.append(Text(f"… and {len(rows) - SCREEN} more rows in the report"))
    parts += [Text(line) for line in _instances(run, organisms)]
    parts += _gates(run)
    parts += [Text(""), Text(answer.paragraph(run, organisms))]
    return Padding(Group(*parts), (1, 0, 0, 0))


def _number(result: Result | None, *, interval: bool = False) -> Text:
    if result is None:
        return Text("–", style="dim")
    if result.value is None:
        return Text("refused", style="bold red")
    return Text(words.plain(result) if interval else words.value(result))


def _near(row: answer.Row) -> Text:
    if row.near is None:
        return Text("–", style="dim")
    return _number(row.near[1]).append(f" {words.near_miss(row.near)}", style="dim")


def _relearned(row: answer.Row) -> Text:
    if row.relearned is None:
        return Text("–", style="dim")
    text = _number(row.relearned.result)
    if row.relearned_twin:
        text.append(" (").append_text(_number(row.relearned_twin.result)).append(")")
    return text.append(f" @{row.relearned.steps}", style="dim")


def _instances(run: Run, organisms: list[Lineage]) -> list[str]:
    return [
        f"worst near-miss instance of the {lineage.label} organism: {worst[0]!r}, {words.number(worst[1])}"
        for lineage in organisms
        if (worst := sheets.worst_instance(run, lineage.organism))
    ]


def _gates(run: Run) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"gates: {answer.gate_line(run)}")]
    for gate in answer.gates_in_order(run):
        if gate.ok is False:
            text = Text(f"  {gate.id} ", style="bold red")
            lines.append(
                text.append(f"({answer.scope(gate)}): {gate.message or gate.measured}", style="default")
            )
    return lines
