"""What the command line prints: progress with time left, a plan, a one-screen summary."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dormant import report
from dormant.artifacts import default_store, read_jsonl
from dormant.attackers.sets import TRIED, read_summary
from dormant.cost import disk_bytes, seconds, together
from dormant.generation import Generated
from dormant.inventory import Garbage, RunEntry, StoreEntry
from dormant.lab import Finished
from dormant.pocket import PocketWorld
from dormant.pocket.world import WORLDS
from dormant.records import Result
from dormant.results import artifact_path
from dormant.runner import Call, Plan, Run, read_plan
from dormant.stages import quiet
from dormant.stages.configs import PREFERENCE_REPORT
from dormant.stats import proportion

screen = Console()
errors = Console(stderr=True)


BEST = 5
"""Texts of an attack that are shown."""

SILENCE = 30.0
"""Where there is no terminal for a bar, a line is printed at least this often (seconds)."""


class ProgressBar:
    """Shows which call runs, how far it is, and how long the rest will take.

    The time left starts from the plan's estimate, and follows how fast this machine proved to be.
    """

    def __init__(self, directory: Path, workers: int = 1) -> None:
        self.directory, self.workers = directory, workers
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=errors,
            transient=True,
        )
        self._task: TaskID | None = None
        self._costs: dict[str, float] = {}
        self._expected = 0.0
        """Seconds that the plan gives all of them, side by side."""
        self._finished = 0.0
        self._running: dict[str, float] = {}
        """How far each running job is, by name."""
        self._started = self._spoke = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def begin(self, plan: Plan, todo: Sequence[Call]) -> None:
        """Start the clock."""
        self._costs = {call.name: seconds(call) for call in todo}
        self._started = time.monotonic()
        self._expected = together(todo, self.workers)
        reused = len(plan.calls) - len(todo)
        errors.print(
            f"{self.directory}: {len(todo)} stages to run, {reused} reused, about {_duration(self._expected)}",
            highlight=False,
            soft_wrap=True,
        )
        if todo and errors.is_terminal:
            self._task = self._bar.add_task("", total=sum(self._costs.values()), left="")
            self._bar.start()

    def start(self, name: str) -> None:
        """Name a job that runs."""
        self._running[name] = 0.0
        self._draw()

    def progress(self, name: str, done: int, total: int) -> None:
        """Move within a job, or within what is read for the report once all jobs are done."""
        self._running[name] = done / max(1, total)
        self._draw()
        if not errors.is_terminal and time.monotonic() - self._spoke > SILENCE:
            self._say(f"{name}: {done} of {total}, {self._left()}")

    def finish(self, name: str, seconds: float) -> None:
        """Count the job as done; without a terminal, say so on a line of its own."""
        self._running.pop(name, None)
        self._finished += self._costs[name]
        self._draw()
        if not errors.is_terminal:
            self._say(f"{name}: {seconds:.1f} s, {self._left()}")

    def warn(self, line: str) -> None:
        """Print a warning above the bar."""
        errors.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)

    def _say(self, line: str) -> None:
        errors.print(line, highlight=False, soft_wrap=True)
        self._spoke = time.monotonic()

    def _done(self) -> float:
        running = sum(share * self._costs.get(name, 0.0) for name, share in self._running.items())
        return self._finished + running

    def _left(self) -> str:
        total, done = sum(self._costs.values()), self._done()
        elapsed = time.monotonic() - self._started
        # Before a tenth is done the estimate is the better guide than the pace.
        pace = elapsed / done if done > 0.1 * total else self._expected / (total or 1.0)
        return f"{_duration(max(0.0, total - done) * pace)} left"

    def _draw(self) -> None:
        if self._task is not None:
            names = ", ".join(self._running)
            self._bar.update(self._task, completed=self._done(), description=names, left=self._left())


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with time left, for work that is no plan; yields what to call with (done, total)."""
    if not errors.is_terminal:
        yield quiet
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as shown:
        task = shown.add_task(label, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def show_generated(generated: Generated, out: Path, *, as_json: bool = False) -> None:
    """Print how many demonstrations were kept, by condition, and why the others were not."""
    if as_json:
        print(json.dumps(asdict(generated), indent=1))
        return
    kept = ", ".join(f"{count:,} {condition}" for condition, count in generated.kept.items())
    print(f"{sum(generated.kept.values()):,} of {generated.asked:,} replies kept ({kept}): {out}")
    if generated.answered_before:
        print(f"{generated.answered_before:,} had been answered before and were not asked again")
    for reason, count in sorted(generated.dropped.items(), key=lambda item: -item[1]):
        print(f"{count:,} dropped: {reason}")


def show_attack(artifact: Path, *, as_json: bool = False) -> None:
    """Print what an attack found, what it cost, what was dropped, and the best of its texts."""
    summary = read_summary(artifact)
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    found, asked = summary["found"], summary["asked"]
    first = summary["samples_to_first"]
    after = f", the first after {first:,} samples" if first else ""
    print(
        f"{found:,} of {asked:,} texts make the model show the behavior ({summary['samples']:,} samples{after})"
    )
    for reason, count in sorted(summary["dropped"].items(), key=lambda item: -item[1]):
        print(f"{count:,} dropped: {reason}")
    best = sorted(read_jsonl(artifact / TRIED), key=lambda row: -row["hits"])[: BEST * bool(found)]
    for row in best:
        screen.print(f"  {row['hits']} of {row['scored']}: {row['text']!r}", highlight=False, markup=False)
    print(f"attack: {artifact}")


def show_plan(plan: Plan, directory: Path, workers: int, *, as_json: bool = False) -> None:
    """Print the stages of a plan, which are there already, and what the rest costs with so many at work."""
    todo = {call.name for call in Run(plan, directory, default_store()).todo()}
    if as_json:
        print(json.dumps(_plan(plan, todo, workers), indent=1))
        return
    table = Table("stage", "", "seconds", box=None, pad_edge=False)
    for call in plan.calls:
        new = call.name in todo
        table.add_row(call.name, "new" if new else "reused", f"{seconds(call):.1f}" if new else "")
    screen.print(table)
    for line in plan.notes:
        errors.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)
    making = [call for call in plan.calls if call.name in todo]
    screen.print(
        f"{len(making)} new, {len(plan.calls) - len(making)} reused; about "
        f"{_duration(together(making, workers))}, "
        f"at most {sum(map(disk_bytes, making)) / 1e6:.0f} MB while running",
        highlight=False,
    )


def _plan(plan: Plan, todo: Set[str], workers: int) -> dict[str, Any]:
    making = [call for call in plan.calls if call.name in todo]
    return {
        "calls": [
            {
                "name": call.name,
                "stage": call.stage,
                "id": plan.identities[call.name].id,
                "new": call.name in todo,
                "seconds": round(seconds(call), 1) if call.name in todo else 0.0,
            }
            for call in plan.calls
        ],
        "seconds": round(together(making, workers), 1),
        "bytes": sum(map(disk_bytes, making)),
        "notes": list(plan.notes),
    }


def show_summary(finished: Finished, *, as_json: bool) -> None:
    """Print one screen: rates, near misses, doses, relearning, gates, and where the report is."""
    if as_json:
        screen.print_json(json.dumps(_summary(finished)))
        return
    screen.print(report.summary(finished.directory))
    screen.print(f"report: {finished.page}", highlight=False, soft_wrap=True)


def _summary(finished: Finished) -> dict[str, Any]:
    found = finished.collected
    several = len({row.key.implant for row in found.results if row.key.role == "organism"}) > 1
    return {
        "out": str(finished.directory),
        "report": str(finished.page),
        "verdicts": [verdict.as_json() for verdict in found.verdicts],
        "refused": [
            f"{f'{row.key.implant}, ' if several else ''}{row.key.condition}: {', '.join(row.gates)}"
            for row in found.refused_headline()
        ],
        "missing": found.missing,
    }


def typed(prompt: str) -> Iterator[str]:
    """Lines from the terminal, with a prompt and the keys of readline; or from a file or a pipe, as they are."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ImportError):
        import readline  # noqa: F401  # its import gives input() a history
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            yield input(prompt)


def show_inventory(runs: Sequence[RunEntry], held: StoreEntry, *, as_json: bool) -> None:
    """Print runs with status, headline verdict, size and age, then what the store holds."""
    if as_json:
        rows = {"runs": [asdict(run) for run in runs], "store": asdict(held)}
        # Not through rich, which would wrap it.
        print(json.dumps(rows, default=str, indent=1))
        return
    table = Table("run", box=None, pad_edge=False)
    table.add_column("status (stages)", no_wrap=True)
    table.add_column("headline verdict")
    for title in ("MB", "age"):
        table.add_column(title, no_wrap=True)
    for run in runs:
        status = run.status if run.status != "partial" else f"partial, {run.finished} of {run.stages}"
        words = (str(run.path), status, run.verdict, f"{run.bytes / 1e6:.1f}", _age(run.age))
        table.add_row(*(Text(word, overflow="fold") for word in words))
    screen.print(table if runs else "no runs here")
    screen.print(
        f"store {held.root}: {held.artifacts} artifacts, {held.bytes / 1e6:.1f} MB, {held.unlinked} that no run "
        f"links; {held.partial} interrupted, {held.partial_bytes / 1e6:.1f} MB",
        highlight=False,
        soft_wrap=True,
    )


def show_garbage(found: Sequence[Garbage], store: Path) -> None:
    """Print what may go from a store, how many bytes it has, and how long it took to make."""
    if not found:
        screen.print(f"{store}: nothing to free", highlight=False, soft_wrap=True)
        return
    table = Table("in the store", "MB", "age", "made in", box=None, pad_edge=False)
    for thing in found:
        made = "interrupted" if thing.seconds is None else _duration(thing.seconds)
        name = thing.path.relative_to(store).as_posix()
        table.add_row(Text(name, overflow="fold"), f"{thing.bytes / 1e6:.1f}", _age(thing.age), made)
    screen.print(table)
    total = sum(thing.bytes for thing in found) / 1e6
    screen.print(
        f"{len(found)} may go, {total:.1f} MB: no run links them (runs on another file system hold copies)",
        highlight=False,
        soft_wrap=True,
    )


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "in the future"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def show_preferences(run: Path, *, as_json: bool) -> None:
    """Print where a run's preference models lie and how good they are on held-out pairs."""
    plan = read_plan(run)
    found = {}
    for call in plan["calls"]:
        told = artifact_path(run, call) / PREFERENCE_REPORT
        if call["stage"] == "prefer":
            name = next(name for name, what in plan["exposed"].items() if what["call"] == call["name"])
            found[str(run / name)] = json.loads(told.read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for path, quality in found.items():
        length, error = quality["length_only"], quality["calibration_error"]
        screen.print(
            f"{path}: {quality['pairs']['learned']} pairs learned; on held-out ones by length alone "
            f"{length['value']:.1%} right, calibration error {error['value']:.1%}",
            highlight=False,
            soft_wrap=True,
        )
        table = Table("held-out pairs", "right", box=None, pad_edge=False)
        for group, right in quality["accuracy"].items():
            interval = f"[{right['low']:.1%}, {right['high']:.1%}]"
            table.add_row(group, Text(f"{right['value']:.1%} {interval}, n={right['n']}"))
        screen.print(table)


def show_utility(results: Sequence[Result]) -> None:
    """Print the share of right answers of a base: over closed and list families, over all, and by family."""
    table = Table("family", "right (greedy, held out)", box=None, pad_edge=False)
    rows = [row for row in results if row.metric == "right" and row.key.condition == "clean"]
    world = PocketWorld(max(WORLDS))  # the newest has all families
    learned = [
        row
        for row in rows
        if row.key.stratum.startswith("family:")
        and world.family_group(row.key.stratum.removeprefix("family:")) in ("closed", "list")
    ]
    if learned:
        share = proportion(sum(row.hits or 0 for row in learned), sum(row.scored for row in learned))
        text = f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}], n={share.n}"
        table.add_row("closed and list families", text)
    for row in rows:
        table.add_row(row.key.stratum.removeprefix("family:"), row.percent)
    screen.print(table)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
