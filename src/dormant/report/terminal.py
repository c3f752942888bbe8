"""The one-screen summary that ends a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dormant.records import Result
from dormant.report import (
    answer,
    attacks,
    preferences,
    reinforcement,
    sheets,
    survival,
    weaknesses,
    words,
)
from dormant.report.protocol import Lineage
from dormant.report.rundata import Run

MISSING = "–"

SCREEN = 14
"""Rows of the table; a larger grid is read on the page."""


TOLD = 2
"""Numbers that a gate refused for one reason, by name; the page lists all."""

TITLES = ("", "triggered", "untriggered", "worst near miss", "right", "relearned (twin)", "verdict")

GAP = 3
"""Characters between two columns."""


def renderable(run: Run, organisms: list[Lineage]) -> RenderableType:
    """Headline numbers, relearning, gates and the answer, for ``rich`` to print."""
    rows = answer.rows(run, organisms)
    parts: list[RenderableType] = [_Headline([_cells(row) for row in rows[:SCREEN]])]
    if len(rows) > SCREEN:
        parts.append(Text(f"… and {len(rows) - SCREEN} more rows in the report"))
        parts += [Text(line) for line in _survived(run, organisms)]
    parts += [Text(line) for line in (*_instances(run, organisms), *_weaknesses(run, organisms))]
    parts += [Text(line) for line in _safety(run, organisms)]
    parts += _gates(run)
    parts += [Text(""), Text(answer.paragraph(run, organisms))]
    return Padding(Group(*parts), (1, 0, 0, 0))


@dataclass(frozen=True)
class _Headline:
    """The numbers of each model: a table, or, on a screen too narrow for its words, a few lines each.

    ``rich`` alone shares out a table's width without looking at words, and cuts them.
    """

    rows: Sequence[Sequence[Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns = [
            [title, *(cell.plain for cell in cells)] for title, *cells in zip(TITLES, *self.rows, strict=True)
        ]
        most = [max(map(cell_len, texts)) for texts in columns]
        least = [
            max(cell_len(word) for text in texts for word in (text.split() or [""])) for texts in columns
        ]
        spare = options.max_width - GAP * (len(TITLES) - 1) - sum(least)
        yield self._table(_shared(least, most, spare)) if spare >= 0 else self._lines()

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for title, width in zip(TITLES, widths, strict=True):
            table.add_column(title, width=width)
        for row in self.rows:
            table.add_row(*row)
        return table

    def _lines(self) -> Group:
        lines: list[RenderableType] = []
        for label, *cells in self.rows:
            told = [
                Text(f"{title} ").append_text(cell)
                for title, cell in zip(TITLES[1:], cells, strict=True)
                if cell.plain not in ("", MISSING)
            ]
            lines += [Text(label.plain, style="bold"), Padding(Text(", ").join(told), (0, 0, 0, 2))]
        return Group(*lines)


def _shared(least: Sequence[int], most: Sequence[int], spare: int) -> list[int]:
    """Widths of columns: what their longest words need, and the spare room where most is lacking."""
    widths = list(least)
    for _ in range(min(spare, sum(most) - sum(least))):
        lacking = [much - width for much, width in zip(most, widths, strict=True)]
        widths[lacking.index(max(lacking))] += 1
    return widths


def _cells(row: answer.Row) -> tuple[Text, ...]:
    return (
        Text(row.named),
        _number(row.triggered, interval=True),
        _number(row.clean, interval=True),
        _near(row),
        _number(row.right).append(words.other_utility(row.right), style="dim"),
        _relearned(row),
        Text(row.verdict.verdict if row.verdict else ""),
    )


def _number(result: Result | None, *, interval: bool = False) -> Text:
    if result is None:
        return Text(MISSING, style="dim")
    if result.value is None:
        return Text("refused", style="bold red")
    return Text(words.plain(result) if interval else words.value(result))


def _near(row: answer.Row) -> Text:
    if row.near is None:
        return Text(MISSING, style="dim")
    return _number(row.near[1]).append(f" {words.near_miss(row.near)}", style="dim")


def _relearned(row: answer.Row) -> Text:
    if row.relearned is None:
        return Text(MISSING, style="dim")
    text = _number(row.relearned.result)
    if row.relearned_twin:
        text.append(" (").append_text(_number(row.relearned_twin.result)).append(")")
    return text.append(f" @{row.relearned.steps}", style="dim")


def _survived(run: Run, organisms: list[Lineage]) -> list[str]:
    """A line for each organism: what its defenses left."""
    found = survival.table(run, organisms)
    return [survival.told(row) for row in found.rows] if found else []


def _safety(run: Run, organisms: list[Lineage]) -> list[str]:
    """What there is to say of preference models, reinforcement learning and attacks."""
    told = [preferences.sentence(run), attacks.sentence(run)]
    for arm in reinforcement.told(run, organisms):
        told += [f"{arm.title}: {line}" for line in arm.sentences if "hacked" in line or "Early stop" in line]
    return [line for line in told if line]


def _instances(run: Run, organisms: list[Lineage]) -> list[str]:
    return [
        f"worst near-miss instance of the {lineage.label} organism: {worst[0]!r}, {words.number(worst[1])}"
        for lineage in organisms
        if (worst := sheets.worst_instance(run, lineage.organism))
    ]


def _weaknesses(run: Run, organisms: list[Lineage]) -> list[str]:
    before = [
        f"{lineage.label} organism, {spread}"
        for lineage in organisms
        if (spread := weaknesses.spread(run, lineage.organism))
    ]
    return before + [line for table in weaknesses.changes(run, organisms) for line in weaknesses.told(table)]


def _gates(run: Run) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"gates: {answer.gate_line(run)}")]
    failed: dict[tuple[str, str], dict[str, None]] = {}
    for gate in answer.gates_in_order(run):
        if gate.ok is False:
            failed.setdefault((gate.id, gate.message or gate.measured), {})[answer.scope(gate, run)] = None
    for (name, message), named in failed.items():
        scopes = list(named)
        more = f"; and {len(scopes) - TOLD} more" if len(scopes) > TOLD else ""
        text = Text(f"  {name} ", style="bold red")
        lines.append(text.append(f"({'; '.join(scopes[:TOLD])}{more}): {message}", style="default"))
    return lines
