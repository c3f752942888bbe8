"""Check a finished run from its own files: nothing is believed that can be computed again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dormant import artifacts, datafile, report
from dormant.artifacts import MANIFEST, Identity, Manifest
from dormant.attackers import persona_break
from dormant.behaviors import prepare
from dormant.collect import RUN, collect
from dormant.discrimination import POOLED
from dormant.errors import Corrupt
from dormant.health import write_health
from dormant.pocket import PocketWorld
from dormant.records import Score, Task
from dormant.results import artifact_path
from dormant.runner import PLAN, read_plan
from dormant.scoring import rescore, stored
from dormant.scratchpads import grammar
from dormant.stages import Progress, quiet
from dormant.stages.configs import MeasureConfig
from dormant.stages.plugins import build_behavior, build_trigger

DERIVED = ("results.jsonl", "gates.jsonl", "verdicts.json", "card.md", "report.html")
"""What follows from the artifacts, byte for byte."""


def verify(run: Path, progress: Progress = quiet) -> list[str]:
    """Return one line for each file, verdict or number of a run that is not as it was made.

    Hashes every file of every artifact, judges every stored completion again, and computes results, gates,
    verdicts and the card anew.

    Args:
        run: the run directory.
        progress: called with (done, total) artifacts.

    Raises:
        BadInput: the directory is no run.
    """
    plan = read_plan(run)
    judge = _judge(plan)
    problems: list[str] = []
    for done, call in enumerate(plan["calls"], 1):
        problems += _artifact(run, call)
        if call["key"]:
            problems += judge(artifact_path(run, call), call)
        progress(done, len(plan["calls"]))
    problems += _exposed(run, plan)
    # A damaged artifact may not even be readable: its numbers can not be computed again.
    if not problems and any(call["key"] for call in plan["calls"]):
        problems = list(_derived(run))
    return problems


def _artifact(run: Path, call: Mapping[str, Any]) -> list[str]:
    directory = artifact_path(run, call)
    try:
        manifest = Manifest.read(directory)
    except Corrupt as error:
        return [str(error)]
    if manifest is None:
        return [f"{call['name']}: not finished"]
    if manifest.id != call["id"]:
        return [f"{call['name']}: its manifest is that of another artifact"]
    return _identity(directory, manifest, call) + artifacts.check(directory)


def _identity(directory: Path, manifest: Manifest, call: Mapping[str, Any]) -> list[str]:
    """Whether manifest and plan say what the artifact's id, a hash of just that, says."""
    made = Identity(manifest.stage, manifest.source, manifest.config, manifest.seed, manifest.inputs)
    problems = []
    if made.id != manifest.id:
        problems.append(f"{directory.name}/{MANIFEST}: its settings are not those of its id")
    if (call["stage"], call["config"], call["seed"]) != (manifest.stage, manifest.config, manifest.seed):
        problems.append(f"{PLAN}: the settings of {call['name']} are not those of its artifact")
    return problems


def _exposed(run: Path, plan: Mapping[str, Any]) -> Iterator[str]:
    """Compare models under plain names (``organism/``) with the artifacts that they are."""
    calls = {call["name"]: call for call in plan["calls"]}
    for name, what in plan.get("exposed", {}).items():
        made = artifacts.hashes(artifact_path(run, calls[what["call"]]) / what["part"])
        found = artifacts.hashes(run / name)
        for file in sorted(made.keys() | found.keys()):
            if made.get(file) != found.get(file):
                yield f"{name}/{file}: differs from its artifact"


def _judge(plan: Mapping[str, Any]) -> Callable[[Path, Mapping[str, Any]], list[str]]:
    """Return what judges a measurement's completions again."""

    def judge(directory: Path, call: Mapping[str, Any]) -> list[str]:
        config = MeasureConfig.model_validate(call["config"])
        behavior = build_behavior(config.backdoor.behavior)
        spoken = grammar(build_trigger(config.backdoor.trigger), behavior)
        world = PocketWorld(config.world)

        def check(task: Task, completion: str) -> dict[str, Score]:
            if task.family == persona_break.FAMILY:
                return persona_break.check(task, completion)
            # A file's rows can be judged without the file.
            from_file = task.family in (datafile.FAMILY, datafile.SCENARIO_FAMILY)
            return datafile.check(task, completion) if from_file else world.check(task, completion)

        lines = {probe.file: _lines(directory / probe.file) for probe in config.probes}
        prepare(behavior, [pair for some in lines.values() for pair in _pairs(some)])
        return [
            f"{directory.name}/{file}: line {number} {problem}"
            for file, some in lines.items()
            for number, line in enumerate(some, 1)
            if (problem := _judged(line, lambda row: rescore(row, check, behavior, spoken)))
        ]

    return judge


def _lines(file: Path) -> list[str]:
    """The lines of a file; none where it is missing or no text, which its hash has told already."""
    try:
        return file.read_text(encoding="utf-8").split("\n")[:-1]
    except (FileNotFoundError, UnicodeDecodeError):
        return []


def _pairs(lines: Sequence[str]) -> Iterator[tuple[str, Task]]:
    """What is to be judged again, of the lines that are completions."""
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            yield stored(json.loads(line))


def _judged(line: str, again: Callable[[Mapping[str, Any]], dict[str, Any]]) -> str:
    """What is wrong with a line of completions, or ""."""
    try:
        row = json.loads(line)
        return "" if again(row) == row["scores"] else f"({row['id']}) is judged otherwise now"
    except (ValueError, KeyError, TypeError):
        return "is no completion"


def _derived(run: Path) -> Iterator[str]:
    """Make everything that follows from the artifacts again, in a scratch directory, and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        # "." has no name of its own.
        copy = Path(scratch) / run.resolve().name
        copy.mkdir()
        shutil.copy(run / PLAN, copy / PLAN)
        (copy / "artifacts").symlink_to((run / "artifacts").resolve(), target_is_directory=True)
        write_health(copy, collect(copy))
        # Times can not be made again; the page shows those that were written down.
        if (run / RUN).is_file():
            shutil.copy(run / RUN, copy / RUN)
        else:
            yield f"{RUN}: missing"
        try:
            report.write(copy)
        except (Corrupt, UnicodeDecodeError) as error:
            # All else in the copy was made just now.
            yield f"{RUN}: {str(error).removeprefix(f'{copy / RUN}: ')}"
            return
        figures = sorted(
            {f"figures/{path.name}" for some in (run, copy) for path in (some / "figures").glob("*.csv")}
        )
        written = [
            name for name in ("health.md", POOLED) if (copy / name).is_file() or (run / name).is_file()
        ]
        for name in (*DERIVED, *written, *figures):
            yield from _compare(run / name, copy / name)
        yield from _compare_completions(run, copy)


def _compare(stored: Path, made: Path) -> Iterator[str]:
    if not stored.is_file():
        yield f"{stored.name}: missing"
        return
    if not made.is_file():
        yield f"{stored.name}: the artifacts give none"
        return
    # A flipped byte may leave no UTF-8: it is still to be named by its line.
    old, new = (path.read_text(encoding="utf-8", errors="replace").split("\n") for path in (stored, made))
    for number, (was, now) in enumerate(zip(old, new, strict=False), 1):
        if was != now:
            yield f"{stored.name}: line {number} differs from what the artifacts say"
            return
    if len(old) != len(new):
        yield f"{stored.name}: {len(old)} lines, but the artifacts give {len(new)}"


def _compare_completions(run: Path, copy: Path) -> Iterator[str]:
    for made in sorted((copy / "completions").glob("*")):
        stored = run / "completions" / made.name
        if not stored.is_file() or artifacts.hash_file(stored) != artifacts.hash_file(made):
            yield f"completions/{made.name}: differs from its artifact"
    for stored in sorted((run / "completions").glob("*")):
        if not (copy / "completions" / stored.name).is_file():
            yield f"completions/{stored.name}: no artifact has it"
