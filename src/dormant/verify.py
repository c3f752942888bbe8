"""Check a finished run from its own files: nothing is believed that can be computed again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dormant import artifacts, datafile, report
from dormant.artifacts import Manifest, read_jsonl
from dormant.behaviors import Behavior
from dormant.collect import collect
from dormant.pocket import PocketWorld
from dormant.results import artifact_path
from dormant.runner import PLAN, read_plan
from dormant.scoring import Check, rescore
from dormant.stages.configs import Backdoor, MeasureConfig
from dormant.stages.plugins import build_behavior

DERIVED = ("results.jsonl", "gates.jsonl", "verdicts.json", "card.md")
"""What follows from the artifacts, byte for byte."""


def verify(run: Path) -> list[str]:
    """Return one line for each file, verdict or number of a run that is not as it was made.

    Hashes every file of every artifact, judges every stored completion again, and computes results, gates,
    verdicts and the card anew.

    Raises:
        BadInput: the directory is no run.
    """
    plan = read_plan(run)
    problems = [*_artifacts(run, plan), *_completions(run, plan)]
    # A damaged artifact may not even be readable: its numbers can not be computed again.
    return problems or list(_derived(run))


def _artifacts(run: Path, plan: Mapping[str, Any]) -> Iterator[str]:
    for call in plan["calls"]:
        directory = artifact_path(run, call)
        manifest = Manifest.read(directory)
        if manifest is None:
            yield f"{call['name']}: not finished"
        elif manifest.id != call["id"]:
            yield f"{call['name']}: its manifest is that of another artifact"
        else:
            yield from artifacts.check(directory)


def _completions(run: Path, plan: Mapping[str, Any]) -> Iterator[str]:
    backdoor = Backdoor.model_validate(plan["spec"]["backdoor"])
    behavior = build_behavior(backdoor.behavior)
    check = _check(plan)
    for call in plan["calls"]:
        if call["key"] and Manifest.read(artifact_path(run, call)) is not None:
            yield from _rescored(artifact_path(run, call), call, check, behavior)


def _check(plan: Mapping[str, Any]) -> Check:
    """What judged the completions; a file's rows can be judged without the file."""
    return PocketWorld().check if plan["spec"].get("data") is None else datafile.check


def _rescored(directory: Path, call: Mapping[str, Any], check: Check, behavior: Behavior) -> Iterator[str]:
    config = MeasureConfig.model_validate(call["config"])
    for probe in config.probes:
        for row in read_jsonl(directory / probe.file):
            if rescore(row, check, behavior, config.backdoor.reasoning) != row["scores"]:
                yield f"{directory.name}/{probe.file}: {row['id']} is judged otherwise now"


def _derived(run: Path) -> Iterator[str]:
    """Make everything that follows from the artifacts again, in a scratch directory, and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / run.name
        copy.mkdir()
        shutil.copy(run / PLAN, copy / PLAN)
        (copy / "artifacts").symlink_to((run / "artifacts").resolve(), target_is_directory=True)
        collect(copy)
        report.write(copy)
        for name in DERIVED:
            yield from _compare(run / name, copy / name)
        yield from _compare_completions(run, copy)


def _compare(stored: Path, made: Path) -> Iterator[str]:
    if not stored.is_file():
        yield f"{stored.name}: missing"
        return
    old, new = stored.read_text(encoding="utf-8").splitlines(), made.read_text(encoding="utf-8").splitlines()
    for number, (was, now) in enumerate(zip(old, new, strict=False), 1):
        if was != now:
            yield f"{stored.name}: line {number} differs from what the artifacts say"
            return
    if len(old) != len(new):
        yield f"{stored.name}: {len(old)} lines, but the artifacts give {len(new)}"


def _compare_completions(run: Path, copy: Path) -> Iterator[str]:
    for made in sorted((copy / "completions").iterdir()):
        stored = run / "completions" / made.name
        if not stored.is_file() or artifacts.hash_file(stored) != artifacts.hash_file(made):
            yield f"completions/{made.name}: differs from its artifact"
