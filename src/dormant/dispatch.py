"""Carries a command's plan out in a terminal: a bar while it runs, a summary and an exit code at its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dormant.lab import Finished
    from dormant.runner import Plan

REFUSED = 3
"""Exit code: done, but a headline number was refused."""


def observer_of(out: Path, workers: int = 1) -> Any:
    """What shows the progress of a run in ``out``: a context."""
    from dormant import console

    return console.ProgressBar(out, workers)


def processes(asked: int | None) -> int:
    """How many to work in: as asked, else one a core, and no more than eight."""
    return asked or min(8, os.cpu_count() or 1)


def carry_out(plan: Plan, directory: Path, *, fresh: bool = False, workers: int | None = 1) -> Finished:
    """Run a plan, and write its report."""
    from dormant import lab

    count = processes(workers)
    with observer_of(directory, count) as observer:
        return lab.run_plan(plan, directory, observer=observer, fresh=fresh, workers=count)


def finish(finished: Finished, as_json: bool) -> None:
    """Print the summary; exit 3 when a headline number was refused."""
    from dormant import console

    console.show_summary(finished, as_json=as_json)
    if finished.collected.refused_headline():
        raise typer.Exit(REFUSED)
