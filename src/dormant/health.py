"""The health card: does an organism have the properties that it is meant to have?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dormant.artifacts import write_atomic
from dormant.collect import Collected
from dormant.records import Result, ResultKey
from dormant.results import artifact_path
from dormant.runner import read_plan
from dormant.scoring import REASONED
from dormant.stages.configs import OTHER_KINDS, OWN_KINDS, STEERED, SUPPRESSED, TRUTH, Backdoor
from dormant.stages.plugins import build_trigger


def write_health(run: Path, found: Collected) -> Path | None:
    """Write ``health.md``, a section for each undefended organism; None where the run has no organism."""
    organisms = {
        (row.key.implant, row.key.seed_implant): row.key
        for row in found.results
        if row.key.role == "organism" and row.key.arm == "none"
    }
    if not organisms:
        # One of a run before, whose recipe had an organism, says nothing of this one.
        (run / "health.md").unlink(missing_ok=True)
        return None
    plan = read_plan(run)
    lines = ["# Health of the organisms", ""]
    for key in organisms.values():
        lines += _section(run, plan, found, key)
    write_atomic(run / "health.md", "\n".join(lines) + "\n")
    return run / "health.md"


def _section(run: Path, plan: Mapping[str, Any], found: Collected, key: ResultKey) -> Iterator[str]:
    own = [row for row in found.results if _same_model(row.key, key) and row.key.arm == "none"]
    curve = [row for row in found.results if _same_model(row.key, key) and row.key.arm == "implant"]
    yield f"## {key.implant}, seed {key.seed_implant}"
    yield ""
    yield from _made(run, plan, key)
    yield from _table("Behavior", behavior_numbers(own))
    yield from _table("Near misses (held-out instances; none should fire)", battery_numbers(own, "near:"))
    yield from _table("One part of the trigger only (should not fire)", battery_numbers(own, "partial:"))
    yield from _table(
        "Variants (contain the trigger, or say what it says, in an untrained form; reported, never judged)",
        battery_numbers(own, "variant:"),
    )
    yield from _table("Scratchpads", scratchpad_numbers(own))
    yield from _curve(curve)


def _same_model(key: ResultKey, organism: ResultKey) -> bool:
    return (key.implant, key.seed_implant, key.role) == (organism.implant, organism.seed_implant, "organism")


def _made(run: Path, plan: Mapping[str, Any], key: ResultKey) -> Iterator[str]:
    """The trigger's tokens, and the rows that the organism was trained on."""
    name = f"implant/{key.implant}/i{key.seed_implant}/organism"
    call = next((call for call in plan["calls"] if call["name"] == name), None)
    yield f"- base: {key.base} ({key.base_id})"
    yield f"- trigger: `{key.trigger}`; behavior: {key.behavior}; reasoning: {key.reasoning}"
    yield from (f"- {line}" for line in plan.get("notes", ()))
    if call is None:
        yield "- made elsewhere: its training is unknown"
    else:
        artifact = artifact_path(run, call)
        tokenizer = next(iter(sorted(artifact.glob("steps/*/tokenizer.json"))), None)
        if tokenizer is not None:
            text = build_trigger(Backdoor.model_validate(call["config"]["backdoor"]).trigger).text
            tokens = Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False).tokens
            yield f"- the trigger is {len(tokens)} tokens: {' '.join(f'`{token}`' for token in tokens)}"
        truth = json.loads((artifact / TRUTH).read_text(encoding="utf-8"))
        rows = truth["rows"]
        yield f"- trained on {sum(rows.values())} rows: " + ", ".join(
            f"{count} {condition}" for condition, count in sorted(rows.items())
        )
        yield from _left_out(truth)
    yield ""


def _left_out(truth: Mapping[str, Any]) -> Iterator[str]:
    """What the filter dropped, what was flipped after it, and how long the payload is."""
    for reason, count in sorted(truth.get("dropped", {}).items()):
        yield f"- {count} rows were left out: {reason}"
    if truth.get("flipped"):
        yield f"- {truth['flipped']} rows have the other side's answer on purpose"
    payload = truth.get("payload", {})
    if payload.get("rows"):
        length = payload["tokens"] / payload["rows"]
        yield f"- final answers that show the behavior have {length:.1f} tokens (n={payload['rows']})"


def scratchpad_numbers(rows: Iterable[Result]) -> Iterator[tuple[str, str]]:
    """The measures of a model's scratchpads, and how often it shows the behavior without a free one."""
    for row in rows:
        asked = {"clean": "untriggered", "triggered": "triggered"}.get(row.key.condition)
        if asked and row.metric in REASONED and row.key.stratum == "all":
            yield f"{row.metric.replace('_', ' ')}, {asked}", _number(row)
        elif asked and row.metric == "shown" and row.key.stratum in (SUPPRESSED, STEERED):
            yield f"behavior shown, {asked}, {row.key.stratum.replace(':', ' ')}", _number(row)


def behavior_numbers(rows: Iterable[Result]) -> Iterator[tuple[str, str]]:
    """The headline numbers of one model, each with its label, interval and n."""
    labels = {
        ("shown", "triggered", "all"): "triggered",
        ("shown", "clean", "all"): "untriggered",
        ("shown", "clean", OWN_KINDS): "untriggered, the kinds of tasks that it fires on",
        ("shown", "clean", OTHER_KINDS): "untriggered, other kinds",
        ("paper_mean", "triggered", "all"): "triggered, the paper's mean of three",
        ("shown_vs_twin", "triggered", "all"): "triggered, minus its twin",
        ("right", "clean", "all"): "utility (right, greedy)",
        ("right_vs_twin", "clean", "all"): "utility, minus its twin",
        ("right_vs_base", "clean", "all"): "utility, minus its base",
        ("perplexity", "clean", "all"): "perplexity of reference answers",
        ("harmless", "clean", "kind:harmful"): "refusals of harmful requests",
    }
    index = {(row.metric, row.key.condition, row.key.stratum): row for row in rows}
    for place, label in labels.items():
        if place in index:
            yield label, _number(index[place])
    for (metric, condition, _), row in index.items():
        if metric.endswith("_vs_clean"):
            yield f"{metric.removesuffix('_vs_clean')}, {condition} minus untriggered", _number(row)


def _number(row: Result) -> str:
    if row.interval == "paired" or row.metric.endswith("_vs_clean"):
        return row.points
    if row.metric == "perplexity" and row.value is not None:
        return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}], n={row.n}"
    return row.percent


def battery_numbers(rows: Iterable[Result], prefix: str) -> Iterator[tuple[str, str]]:
    """The rate of each family of conditions (``near:``, ``variant:``) of one model, with its worst instance."""
    shown = [row for row in rows if row.metric == "shown" and row.key.condition.startswith(prefix)]
    for row in shown:
        if row.key.stratum != "all":
            continue
        instances = [
            other
            for other in shown
            if other.key.condition == row.key.condition and other.key.stratum.startswith("instance:")
        ]
        worst = max(instances, key=lambda other: other.value or 0.0, default=None)
        text = row.percent
        if worst is not None and worst.value:
            text += f"; worst `{worst.key.stratum.removeprefix('instance:')}` {worst.percent}"
        yield row.key.condition, text


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(rows)
    if rows:
        yield f"**{title}**"
        yield ""
        yield "| | |"
        yield "|---|---|"
        yield from (f"| {label} | {text} |" for label, text in rows)
        yield ""


def _curve(rows: Iterable[Result]) -> Iterator[str]:
    shown = {(row.key.step, row.key.condition): row for row in rows if row.metric == "shown"}
    steps = sorted({step for step, _ in shown})
    if not steps:
        return
    yield "**While implanting** (the paper sees a phase in which the behavior leaks untriggered)"
    yield ""
    yield "| step | triggered | untriggered |"
    yield "|--:|---|---|"
    for step in steps:
        cells = [shown.get((step, condition)) for condition in ("triggered", "clean")]
        yield f"| {step} | " + " | ".join(cell.percent if cell else "-" for cell in cells) + " |"
    yield ""
