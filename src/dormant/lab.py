"""The verbs, as functions: what the command line calls, and what a script imports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dormant import report
from dormant.artifacts import default_store, writing
from dormant.collect import Collected, collect
from dormant.experiment import Experiment, Implant
from dormant.health import write_health
from dormant.planning import make_plan
from dormant.runner import Call, External, Observer, Plan, Quiet, Run
from dormant.stages import Progress, quiet
from dormant.stages.configs import Backdoor, World
from dormant.verbs import usual_battery, usual_world


@dataclass(frozen=True)
class Finished:
    """A run directory with its numbers and its report."""

    directory: Path
    collected: Collected
    page: Path


def run(
    experiment: Experiment,
    out: str | Path,
    *,
    observer: Observer | None = None,
    fresh: bool = False,
    workers: int = 1,
) -> Finished:
    """Run an experiment into the directory ``out``; what is there already is not done again.

    Raises:
        BadInput: a setting, the base, the data or ``out`` can not be used.
    """
    return run_plan(make_plan(experiment), Path(out), observer=observer, fresh=fresh, workers=workers)


def run_plan(
    plan: Plan, out: Path, *, observer: Observer | None = None, fresh: bool = False, workers: int = 1
) -> Finished:
    """Run any plan, collect its numbers and write its report."""
    made = execute(plan, out, observer=observer, fresh=fresh, workers=workers)
    return finish(out, made, partial(observer.progress, "reading the results") if observer else quiet)


def execute(
    plan: Plan, out: Path, *, observer: Observer | None = None, fresh: bool = False, workers: int = 1
) -> list[str]:
    """Run a plan without a report; returns the names of the calls that were made rather than reused."""
    run = Run(plan, out, default_store())
    return run.execute(observer or Quiet(), fresh=fresh, workers=workers, check=_check)


def _check(todo: Sequence[Call]) -> None:
    """Find what would stop these calls, before the first of them runs."""
    if todo:
        # Deferred: a run that reuses everything needs no torch.
        from dormant.stages import preflight

        preflight.check((call.config, _external(call)) for call in todo)


def _external(call: Call) -> dict[str, Path]:
    return {name: given.path for name, given in call.inputs.items() if isinstance(given, External)}


def finish(directory: Path, made: list[str] | None = None, progress: Progress = quiet) -> Finished:
    """Collect a run directory's numbers and write its report, whole or partial.

    Raises BadInput where ``directory`` is no run, or can not be written.
    """
    with writing(directory):
        collected = collect(directory, made or [], progress)
        write_health(directory, collected)
        return Finished(directory, collected, report.write(directory).page)


def implant(
    base: str,
    out: str | Path,
    *,
    implant: Implant | None = None,
    backdoor: Backdoor | None = None,
    data: str | None = None,
    world: World | None = None,
    chat: Literal["auto", "plain"] = "auto",
    observer: Observer | None = None,
    workers: int = 1,
) -> Finished:
    """Make an organism and its twin from ``base``: ``out/organism``, ``out/twin`` and ``out/health.md``."""
    backdoor = backdoor or Backdoor()
    world = usual_world(backdoor, data, world)
    experiment = Experiment(
        name="implant",
        base=base,
        data=data,
        world=world,
        chat=chat,
        backdoor=backdoor,
        implants=(implant or Implant(),),
        measure=usual_battery(world),
        relearning=None,
    )
    name = experiment.implants[0].name
    exposed = {role: f"implant/{name}/i0/{role}" for role in ("organism", "twin")}
    plan = replace(make_plan(experiment), exposed=exposed)
    return run_plan(plan, Path(out), observer=observer, workers=workers)
