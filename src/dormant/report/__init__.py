"""Turns a run directory into a persistence card, a page and its figures' numbers.

Reads nothing but the run directory, and writes ``card.md``, ``report.html`` and ``figures/*.csv`` into it.
The same run gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dormant.artifacts import write_atomic
from dormant.report import protocol, rundata, sheets

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class ReportPaths:
    """Where a report lies."""

    card: Path
    page: Path
    figures: tuple[Path, ...]


def write(run_dir: Path) -> ReportPaths:
    """Write the report of a run, whole or partial, into its directory.

    Raises:
        BadInput: the directory is not a run.
        Corrupt: one of its files does not hold what a run writes.
    """
    from dormant.report import (
        attacks,
        card,
        generalization,
        page,
        reinforcement,
        weaknesses,
    )  # matplotlib and jinja2 load here, not with the package

    run = rundata.load(run_dir)
    organisms = protocol.lineages(run)
    gathered = {
        sheet.name: sheet
        for sheet in (
            build(run, organisms)
            for build in (
                sheets.bars,
                sheets.curves,
                sheets.implanting,
                sheets.near_misses,
                sheets.utility,
                generalization.sheet,
                weaknesses.sheet,
                weaknesses.held_out_sheet,
                weaknesses.scenario_sheet,
                reinforcement.sheet,
                attacks.sheet,
            )
        )
    }
    texts = {f"{name}.csv": sheet.csv() for name, sheet in gathered.items()}
    texts["paper.csv"] = sheets.paper_csv()
    texts["paper_curves.csv"] = sheets.paper_curves_csv()
    texts["rl_training.csv"] = reinforcement.training_csv(run, organisms)
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.csv"):
        stale.unlink()  # of another run that was here, or of an earlier version
    figures = tuple(_save(folder / name, text) for name, text in texts.items() if text)
    return ReportPaths(
        card=_save(run_dir / "card.md", card.markdown(run, organisms)),
        page=_save(run_dir / "report.html", page.html(run, organisms, gathered)),
        figures=figures,
    )


def summary(run_dir: Path) -> RenderableType:
    """Return a one-screen summary of a run for ``rich`` to print.

    Raises:
        BadInput: the directory is not a run.
        Corrupt: one of its files does not hold what a run writes.
    """
    from dormant.report import terminal

    run = rundata.load(run_dir)
    return terminal.renderable(run, protocol.lineages(run))


def _save(path: Path, text: str) -> Path:
    write_atomic(path, text)
    return path
