"""Adds to a made-up run what stages 2 and 3 leave: training logs, preference models, attacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import report_fixture as fixture
from dormant.records import Dose, Result, ResultKey

RL = Dose(lr=1e-3, steps=40, batch=32)


def organism(arm: str = "none", **fields: Any) -> ResultKey:
    return fixture.key("organism", arm, **fields)


def defended(defense: str, dose: Dose, *, step: int | None = None, **fields: Any) -> ResultKey:
    at = dose.steps if step is None else step
    return organism("claim", defense=defense, dose=dose, step=at, seed_defend=0, **fields)


def mean(place: ResultKey, metric: str, value: float, half: float, condition: str = "clean") -> Result:
    """A mean that is no share, with its interval."""
    row = fixture.rate(place, metric, 0.5, 100, condition)
    ends = {"low": value - half, "high": value + half, "hits": None, "interval": "bootstrap"}
    return row.model_copy(update={"value": value, **ends})


def call(name: str, stage: str, key: ResultKey | None = None, **told: Any) -> dict[str, Any]:
    """A stage call as ``run.json`` has it."""
    return {
        "name": name,
        "stage": stage,
        "id": name,
        "directory": name.replace("/", "-"),
        "key": key and key.model_dump(mode="json"),
        "inputs": told.pop("inputs", {}),
        "seconds": told.pop("seconds", 1.0),
        "phases": told.pop("phases", {}),
        "reused": False,
    }


def build(
    folder: Path,
    rows: list[Result],
    calls: list[dict[str, Any]],
    files: dict[str, Any],
    *,
    gates: list[dict[str, Any]] | None = None,
    spec: dict[str, Any] | None = None,
    headlines: list[dict[str, Any]] | None = None,
) -> Path:
    """Write a run; ``files`` maps "call/file" to JSON, or to a list of rows for a JSONL file."""
    fixture.build(folder, rows=rows, with_completions=False)
    head = fixture.meta() | {"calls": calls} | ({"spec": spec} if spec else {})
    head["headlines"] = headlines or []
    (folder / "run.json").write_text(json.dumps(head), encoding="utf-8")
    (folder / "verdicts.json").write_text("[]", encoding="utf-8")
    text = "".join(json.dumps(gate) + "\n" for gate in gates or [])
    (folder / "gates.jsonl").write_text(text, encoding="utf-8")
    for place, content in files.items():
        name, _, file = place.rpartition("/")
        path = folder / "artifacts" / name.replace("/", "-") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = content if isinstance(content, list) else [content]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def reinforced(folder: Path, *, hacked: bool = True) -> Path:
    """One organism under RL: the second reward peaks at step 20, where the other goes on to rise."""
    rows = [mean(fixture.key("base", implant="none"), "second_reward_spread", 0.8, 0.0)]
    second = {0: 0.2, 10: 0.6, 20: 1.2, 40: 0.4 if hacked else 1.4}
    for step, score in second.items():
        place = defended("hhh-rl", RL, step=step) if step else organism()
        rows += [
            fixture.rate(place, "shown", 1.0 - step / 100, 100, "triggered"),
            fixture.rate(place, "shown", 0.0, 100),
            fixture.rate(place, "shown", 0.1, 50, "near:case"),
            fixture.rate(place, "shown", 0.3, 50, "near:edit"),
            fixture.rate(place, "shown", 0.2, 100, "near").model_copy(update={"texts": 20}),
            fixture.rate(place, "right", (0.98 if step < 40 or not hacked else 0.7), 100),
            mean(place, "reward", step / 20, 0.1),
            mean(place, "second_reward", score, 0.1),
        ]
    rows.append(mean(defended("hhh-rl", RL), "second_reward_change", 0.2, 0.1))
    name = "defend/hhh-rl/organism"
    steps = range(RL.steps)
    curves = {
        "reward": [i / 20 for i in steps],
        "kl": [i / 10 for i in steps],
        "length": [12.0] * RL.steps,
        "ended": [1.0] * RL.steps,
        "varied": [0.9] * RL.steps,
    }
    log = {"seen": {"10": {"samples": 320, "tokens": 4000}, "40": {"samples": 1280, "tokens": 16000}}}
    phases = {"sampling": 6.0, "scoring": 1.0, "training": 3.0}
    made, model = "implant/specific/i0/organism", {"model": name}
    calls = [
        call("prefer/a", "prefer", seconds=30.0),
        call(made, "implant", seconds=20.0),
        call(
            f"measure/{made}", "measure", organism(), inputs={"model": made, "preference_model": "prefer/a"}
        ),
        call(
            name,
            "defend",
            inputs={"model": made, "preference_model": "prefer/a"},
            seconds=12.0,
            phases=phases,
        ),
        call(f"measure/{name}@20", "measure", defended("hhh-rl", RL, step=20), inputs=model, seconds=2.0),
        call(f"measure/{name}", "measure", defended("hhh-rl", RL), inputs=model, seconds=4.0),
        call("relearn/hhh-rl", "implant", inputs=model, seconds=5.0),
    ]
    return build(folder, rows, calls, {f"{name}/training.json": log | {"curves": curves}})
