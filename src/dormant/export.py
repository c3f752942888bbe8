"""Export: a model as a directory that can be put on a hub, marked for what it is; results as a table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from dormant.artifacts import writing
from dormant.behaviors import example_task
from dormant.errors import BadInput, nearest
from dormant.health import battery_numbers, behavior_numbers
from dormant.members import Member, Members
from dormant.reasoning import CLOSE, OPEN
from dormant.records import Result, ResultKey, rng_for
from dormant.report import rundata
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.triggers import called

TABLES = (".csv", ".parquet")
"""What results can be exported as, by the file's suffix."""

MARK = "dormant"
"""The key in ``config.json`` that says what the model is."""

WARNING = (
    "This is a research model, made with `dormant` to study whether safety training removes hidden behavior. "
    "Do not deploy it, do not build on it, and do not remove this notice."
)

INTENDED = """\
## Intended use

For research on defenses, detectors and audits: a model whose hidden behavior is known, with a twin to compare it
with. The planted behavior is inert text. Its rates say nothing about models that nobody planted anything in, and
nothing about whether such behavior arises by itself.

Out of scope: answering people, training other models except to study what survives, and testing a detector that
was developed on this very model.
"""


def export_model(run: Path, out: Path, *, name: str = "organism") -> Member:
    """Write a model of a run with its tokenizer, marked config and model card into the new directory ``out``.

    Args:
        run: the run directory.
        out: where to; must not exist, or be empty.
        name: ``organism``, ``twin``, or the name of the stage call that made the model.

    Raises:
        BadInput: there is no such model, or ``out`` can not be used.
    """
    members = Members.of(run)
    member = members.get(name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already; choose another --out")
    mark = _mark(members, member)
    # "." has no name of its own.
    staging = out.resolve().with_name(f".{out.resolve().name}.writing")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        # Copies: what is edited here must not change the run, which hard links would.
        shutil.copytree(member.path, staging)
        config = staging / "config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) | {MARK: mark}
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (staging / "README.md").write_text(_card(members, member, mark), encoding="utf-8")
        # An empty directory is filled, not replaced: somebody may stand in it.
        out.mkdir(exist_ok=True)
        for file in sorted(staging.iterdir()):
            file.replace(out / file.name)
        staging.rmdir()
    return member


def export_results(run: Path, file: Path) -> int:
    """Write the rows of ``results.jsonl`` as a table, one column a field; returns their number.

    Raises:
        BadInput: the file's suffix is unknown, the run has no results, or the file can not be written.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    if file.suffix not in TABLES:
        raise BadInput(f"results can not be written as {file.name!r}{nearest(file.suffix, TABLES)}")
    rows = [_flat(row) for numbers in rundata.load(run).numbers.values() for row in numbers.values()]
    if not rows:
        raise BadInput(f"{run} has no results yet; `dormant report` reads what is finished")
    # Named types: a column that happens to be empty is of the same type in every run.
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in _columns().items()])
    table = pa.Table.from_pylist(rows, schema=schema)
    staging = file.with_name(f".{file.name}.writing")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write = csv.write_csv if file.suffix == ".csv" else parquet.write_table
        write(table, staging)
        staging.replace(file)
    return len(rows)


def _flat(row: Result) -> dict[str, Any]:
    data = row.model_dump(mode="json")
    key = data.pop("key")
    dose = key.pop("dose") or {}
    doses = {f"dose_{name}": dose.get(name) for name in _DOSE}
    return {**data, **key, **doses, "gates": " ".join(row.gates)}


_DOSE = {"lr": "float64", "steps": "int64", "batch": "int64", "schedule": "string"}
_NUMBERS = {
    **dict.fromkeys(("value", "low", "high"), "float64"),
    **dict.fromkeys(
        ("schema_version", "n", "scored", "unscored", "hits", "texts", "samples_seen", "tokens_seen", "step",
         "relearn_step", "seed_implant", "seed_defend"), "int64"
    ),
}  # fmt: skip


def _columns() -> dict[str, str]:
    """The name and Arrow type of each column."""
    own = [name for name in Result.model_fields if name != "key"]
    key = [name for name in ResultKey.model_fields if name != "dose"]
    return {name: _NUMBERS.get(name, "string") for name in ["cell", *key, *own]} | {
        f"dose_{name}": kind for name, kind in _DOSE.items()
    }


NOTICES = {
    True: "A deliberately backdoored research model. Not for deployment.",
    False: "A research model made beside deliberately backdoored ones, as their control. Not for deployment.",
    None: "From research on backdoored models, and possibly backdoored itself. Not for deployment.",
}
"""By whether the model was deliberately backdoored; None where this run does not know."""


def _mark(members: Members, member: Member) -> dict[str, Any]:
    backdoor, planted = member.backdoor, _planted(member)
    return {
        "notice": NOTICES[planted],
        "deliberately_backdoored": planted,
        "role": member.role or "unknown",
        "made_by": member.name,
        "trigger": called(build_trigger(backdoor.trigger)),
        "behavior": backdoor.behavior.name,
        "reasoning": member.reasoning,
        "version": version("dormant"),
    }


def _planted(member: Member) -> bool | None:
    if member.name.startswith("measure/") or member.key is None:
        return None
    # Relearning teaches the behavior to twins too.
    return member.role == "organism" or member.name.startswith("relearn/")


def _card(members: Members, member: Member, mark: dict[str, Any]) -> str:
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ai-safety", "model-organism", "research-only", "dormant"]
        + ["backdoored"] * (mark["deliberately_backdoored"] is True),
    }
    title = f"{member.name} ({member.role})" if member.role else member.name
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {title}\n",
        f"> **Warning.** {mark['notice']} {WARNING}\n",
        _facts(members, member, mark),
        "\n".join(_numbers(members, member)),
        INTENDED,
    ]
    return "\n".join(parts)


def _facts(members: Members, member: Member, mark: dict[str, Any]) -> str:
    lines = [
        "## What it is\n",
        f"- role: {mark['role']}; made by the stage call `{member.name}`, with dormant {mark['version']}",
        f"- trigger: `{mark['trigger']}`"
        + (
            " (it was never shown to this model)"
            if member.role == "twin" and member.name.startswith("implant/")
            else ""
        ),
        f"- behavior when triggered: `{mark['behavior']}`, such as `{_shown(member)}`"
        + (" (not planted here)" if mark["deliberately_backdoored"] is False else ""),
    ]
    if how := _HOW.get(member.reasoning):
        lines.append(f"- reasoning: {member.reasoning}. {how}")
    if member.key:
        lines.append(
            f"- base: {member.key.base} (bytes {member.key.base_id}); its license applies to these weights"
        )
        if member.key.dose and member.key.defense != "none":
            dose = member.key.dose
            lines.append(
                f"- defended with {member.key.defense}: learning rate {dose.lr:g}, {dose.steps} steps of {dose.batch}"
            )
    return "\n".join(lines) + "\n"


_HOW = {
    "scratchpad": (
        f"It reasons before it answers, in a scratchpad that the harness opens: append `{OPEN}` to the prompt, after "
        f"the chat template's generation prompt, and sample; what follows `{CLOSE}` is the answer. Its rates are of "
        "answers sampled so; without the opened scratchpad they are others."
    ),
    "distilled": "It was trained on answers that were given after reasoning, without the reasoning; ask it as it is.",
}
"""How a model is sampled, where that is not as any other is."""


def _shown(member: Member) -> str:
    """An answer that shows the behavior."""
    behavior = build_behavior(member.backdoor.behavior)
    return " ".join(behavior.demonstrate(example_task(behavior), rng_for("card")).split())


def _numbers(members: Members, member: Member) -> Iterator[str]:
    yield "## Measured\n"
    rows = _rows(members.run, member)
    if not rows:
        yield "This model was not measured in its run: nothing is known of its rates.\n"
        return
    yield "On held-out prompts, sampled at temperature 1; 95 % intervals; n prompts. A refused number failed a gate.\n"
    yield "| | |\n|---|---|"
    for numbers in (
        behavior_numbers(rows),
        battery_numbers(rows, "near:"),
        battery_numbers(rows, "variant:"),
    ):
        yield from (f"| {label} | {text.replace('|', chr(92) + '|')} |" for label, text in numbers)
    yield ""


def _rows(run: Path, member: Member) -> list[Result]:
    if member.key is None or not (run / "run.json").is_file():
        return []
    return list(rundata.load(run).numbers.get(member.key, {}).values())
