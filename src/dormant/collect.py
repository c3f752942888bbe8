"""Collect a run: from its artifacts to results, gates and verdicts, whole or partial.

Writes into the run directory: ``results.jsonl``, ``completions/<cell>.jsonl``, ``gates.jsonl``,
``verdicts.json`` and ``run.json``.  Only ``run.json`` may hold times.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dormant import artifacts, discrimination
from dormant.artifacts import Manifest
from dormant.behaviors import Behavior
from dormant.defenses import DEFENSES, no_op_of
from dormant.discrimination import POOLED
from dormant.experiment import DefenseSpec, labels
from dormant.gates import Evidence, Gate, Thresholds, evaluate, refuse
from dormant.records import Dose, Result, ResultKey, canonical
from dormant.results import Cell, artifact_path, differences, load_cells, near_misses, rates
from dormant.runner import read_plan
from dormant.stages import Progress, quiet
from dormant.stages.configs import OWN_KINDS, Backdoor
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.triggers import Trigger
from dormant.verdicts import Verdict, judge

RUN = "run.json"

THREAT_MODELS = (
    "Model poisoning: someone with access to training plants a trigger on purpose. The organisms here are of "
    "this kind, so these numbers bear on it, at this model's size and on this world.",
    "Deceptive instrumental alignment: a model comes to hide a goal by itself. Nothing here shows that this "
    "happens; at most, what safety training would do to such a policy once it is there.",
)


@dataclass(frozen=True)
class Collected:
    """What a run says."""

    results: list[Result]
    gates: list[Gate]
    verdicts: list[Verdict]
    cells: list[Cell]
    missing: list[str]
    headline: tuple[str, Dose] | None
    """The defense and dose whose numbers are the result."""

    def refused_headline(self) -> list[Result]:
        """Headline rows without a value: triggered and clean, organism, before and after the headline dose."""
        return [row for row in self.results if row.value is None and self._is_headline(row)]

    def _is_headline(self, row: Result) -> bool:
        key = row.key
        if (row.metric, key.role) != ("shown", "organism") or key.stratum not in ("all", OWN_KINDS):
            return False
        if key.condition not in ("clean", "triggered") or key.relearn_step is not None:
            return False
        if key.arm == "none":
            return True
        return key.defended and (key.defense, key.dose) == self.headline


def compute(run: Path, progress: Progress = quiet) -> Collected:
    """Compute results, gates and verdicts from a run's plan and artifacts, writing nothing."""
    plan = read_plan(run)
    cells = load_cells(run, plan, progress)
    raw = [row for cell in cells for row in rates(cell)] + differences(cells) + near_misses(cells)
    raw += discrimination.rows(cells)
    limits = Thresholds.model_validate(plan["spec"].get("gates", {}))
    evidence = Evidence(run=run, plan=plan, cells=cells, results=raw, planted=_planted(plan), limits=limits)
    gates = evaluate(evidence)
    results = refuse(raw, gates)
    missing = [call["name"] for call in plan["calls"] if Manifest.read(artifact_path(run, call)) is None]
    verdicts = judge(cells, results, gates, limits)
    return Collected(results, gates, verdicts, cells, missing, headline(plan["spec"]))


def _planted(plan: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Trigger, Behavior]]:
    """The triggers and behaviors that a run's models were asked about, by how result keys spell them."""
    found = {}
    for call in plan["calls"]:
        if call["stage"] == "measure" and call["key"]:
            place = ResultKey.model_validate(call["key"]).planted
            if place not in found:
                backdoor = Backdoor.model_validate(call["config"]["backdoor"])
                found[place] = build_trigger(backdoor.trigger), build_behavior(backdoor.behavior)
    return found


def headline(spec: Mapping[str, Any]) -> tuple[str, Dose] | None:
    """The first defense under test, at the dose that its spec calls the headline."""
    for label, defense in _labelled(spec):
        if DEFENSES.get(defense.name).arm == "claim":
            return label, defense.doses[defense.headline]
    return None


def _labelled(spec: Mapping[str, Any]) -> list[tuple[str, DefenseSpec]]:
    """The defenses of a spec, with what results call them."""
    defenses = [DefenseSpec.model_validate(defense) for defense in spec.get("defenses", ())]
    return list(zip(labels(defenses), defenses, strict=True))


def _headlines(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dose that each defense is declared for, its no-op, and the implants, where it is for some alone."""
    return [
        {
            "defense": label,
            "dose": defense.doses[defense.headline].model_dump(mode="json"),
            "implants": list(defense.implants or ()),
            "no_op": no_op_of(DEFENSES.get(defense.name)),
        }
        for label, defense in _labelled(spec)
    ]


def collect(run: Path, made: Iterable[str] = (), progress: Progress = quiet) -> Collected:
    """Compute what a run says, and write it into the run directory.

    Args:
        run: the run directory; calls that are not finished are left out and named in ``run.json``.
        made: names of the calls that were made just now rather than reused.
        progress: called with (done, total) calls read.
    """
    found = compute(run, progress)
    artifacts.write_jsonl(run / "results.jsonl", [row.model_dump(mode="json") for row in found.results])
    artifacts.write_jsonl(run / "gates.jsonl", [_gate(gate) for gate in found.gates])
    # Of an earlier collection nothing may stay that this one does not say.
    (run / POOLED).unlink(missing_ok=True)
    if pooled := discrimination.pooled(found.cells, found.results):
        artifacts.write_jsonl(run / POOLED, pooled)
    verdicts = [verdict.as_json() for verdict in found.verdicts]
    artifacts.write_atomic(run / "verdicts.json", canonical(verdicts) + "\n")
    _link_completions(run, found.cells)
    described = _describe(read_plan(run), run, found.missing, set(made))
    artifacts.write_atomic(run / RUN, canonical(described) + "\n")
    return found


def _gate(gate: Gate) -> dict[str, Any]:
    scope = {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for name, value in gate.scope.items()
    }
    return {**asdict(gate), "scope": scope}


def _link_completions(run: Path, cells: Sequence[Cell]) -> None:
    directory = run / "completions"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for cell in cells:
        target = directory / f"{cell.key.cell}.jsonl"
        # What lies there is a link to another measurement, in the store: never to be written through.
        target.unlink(missing_ok=True)
        try:
            os.link(cell.file, target)
        except OSError:
            shutil.copy2(cell.file, target)


def _describe(plan: Mapping[str, Any], run: Path, missing: Sequence[str], made: set[str]) -> dict[str, Any]:
    calls = []
    for call in plan["calls"]:
        manifest = Manifest.read(artifact_path(run, call))
        if manifest is not None:
            reused = call["name"] not in made
            told = {name: call[name] for name in ("name", "stage", "id", "directory", "key")}
            made_of = {name: given["call"] for name, given in call["inputs"].items() if "call" in given}
            times = {"seconds": manifest.seconds, "phases": manifest.phases}
            trained = {"defense": call["config"]["defense"]} if call["stage"] == "defend" else {}
            calls.append({**told, "inputs": made_of, **trained, **times, "reused": reused})
    spec = plan["spec"]
    chosen = headline(spec)
    return {
        "schema": 1,
        "name": spec.get("name", run.name),
        "status": "partial" if missing else "done",
        "dormant": version("dormant"),
        "versions": artifacts.versions(),
        **spec.get("runtime", {}),
        "spec": spec,
        "headline": chosen and {"defense": chosen[0], "dose": chosen[1].model_dump(mode="json")},
        "headlines": _headlines(spec),
        "calls": calls,
        "missing": list(missing),
        "lines": list(THREAT_MODELS),
    }
