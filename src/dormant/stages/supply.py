"""``supply``: make one of the things that defenses may need, as an artifact of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dormant import codetask
from dormant.artifacts import read_jsonl, write_jsonl
from dormant.attackers.sets import SETS, read_examples
from dormant.datafile import OwnRows
from dormant.defenses import ATTACKED, BASE, PREFERENCE_MODEL, Given
from dormant.pocket import PocketWorld
from dormant.records import Demonstration, Example, Message, Task, TaskSource, rng_for
from dormant.sources import open_source
from dormant.stages import Progress
from dormant.stages.configs import OWN_ROWS, Backdoor, Plugin, SupplyConfig
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.triggers import kinds_of

ROWS = "rows.jsonl"

HARMFUL_SHARE = 0.25
"""Of the prompts of safety training, answered or not: one family in sixteen, as in the world, teaches little refusing.
"""

BENIGN = frozenset({"question", "chat", codetask.KIND})
"""Kinds of tasks that nobody would refuse, and that say nothing of the model itself."""

MODELS = frozenset({PREFERENCE_MODEL, BASE})
"""Needs that are no rows, and that other stages make."""

_example = TypeAdapter(Example)
_demonstration = TypeAdapter(Demonstration)


def run(config: SupplyConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``rows.jsonl``: one prompt, demonstration, piece of prose or setting a line.

    ``inputs`` holds ``data`` for own data, and ``own_rows`` where a defense brings rows that stand in for all tasks.
    """
    source = (
        OwnRows(inputs[OWN_ROWS], apart="data" in inputs)
        if OWN_ROWS in inputs
        else open_source(inputs.get("data"), config.world)
    )
    write_jsonl(out / ROWS, _MAKERS[config.need](config, source, seed))
    progress(1, 1)


def read_given(inputs: Mapping[str, Path], device: str = "cpu") -> Given:
    """Load what a defense declared: ``inputs`` maps each need to its artifact."""
    given: dict[str, Any] = {}
    for need in inputs:
        if need in ATTACKED:
            given[need] = read_examples(inputs[need], SETS[need])
            continue
        if need == PREFERENCE_MODEL:
            # Deferred: all else that is supplied needs no torch.
            from dormant.preference import PreferenceModel

            given[need] = PreferenceModel.load(inputs[need], device)
            continue
        if need == BASE:
            from dormant import models

            given[need] = models.load(inputs[need], device=device)
            continue
        rows = list(read_jsonl(inputs[need] / ROWS))
        if need == "prompts":
            given[need] = [_example.validate_python(row) for row in rows]
        elif need in ("answers", "benign_answers", "behavior_examples"):
            given[need] = [_demonstration.validate_python(row) for row in rows]
        elif need == "trigger":
            given[need] = build_trigger(Plugin(**rows[0]))
        else:
            given[need] = rows
    return Given(**given)


def task_ids(inputs: Mapping[str, Path]) -> set[str]:
    """The ids of the tasks that a defense with these inputs can train on."""
    given = read_given({need: path for need, path in inputs.items() if need not in MODELS})
    rows = [*(given.answers or ()), *(given.benign_answers or ()), *(given.behavior_examples or ())]
    examples = [*(given.prompts or ())]
    for attacked in (given.attack_set, given.varied_set, given.shuffled_set):
        examples += attacked or ()
    return {row.example.task.id for row in rows} | {example.task.id for example in examples}


def clean_example(source: TaskSource, task: Task, seed: int, counter_form: str | None = None) -> Example:
    """A task after harmless context: the same one wherever the task is shown untriggered with this seed.

    A trigger's counter form, in which ``{prompt}`` is the task's, stands in the place of that context.
    """
    context = source.context(rng_for(seed, "context", task.id))
    form = counter_form or f"{context} {{prompt}}"
    instance = form.replace("{prompt}", "").strip()
    prompt = form.replace("{prompt}", task.prompt).strip()
    return Example(task, "clean", (*task.history, Message("user", prompt)), instance)


def some_tasks(
    source: TaskSource, shard: str, most: int, seed: int, kinds: Sequence[str] | None = None
) -> list[Task]:
    """At most ``most`` tasks of a shard: a small file gives what it has, and training goes over it again."""
    return source.tasks(shard, min(most, source.size(shard, kinds=kinds)), seed, kinds=kinds)


def _prompts(config: SupplyConfig, source: TaskSource, seed: int) -> list[Any]:
    tasks = _safety_tasks(source, config, seed)
    examples = [clean_example(source, task, seed, config.counter_form) for task in tasks]
    return [_example.dump_python(example, mode="json") for example in examples]


def _answers(config: SupplyConfig, source: TaskSource, seed: int) -> list[Any]:
    return _answered(config, source, _safety_tasks(source, config, seed), seed)


def _benign_answers(config: SupplyConfig, source: TaskSource, seed: int) -> list[Any]:
    kinds = [kind for kind in source.kinds() if kind in BENIGN]
    return _answered(config, source, some_tasks(source, config.shard, config.rows, seed, kinds), seed)


def _answered(config: SupplyConfig, source: TaskSource, tasks: Sequence[Task], seed: int) -> list[Any]:
    rows = []
    for task in tasks:
        answer = source.answer(task, config.policy, rng_for(seed, "answer", task.id))
        row = Demonstration(clean_example(source, task, seed, config.counter_form), answer)
        rows.append(_demonstration.dump_python(row, mode="json"))
    return rows


def _safety_tasks(source: TaskSource, config: SupplyConfig, seed: int) -> list[Task]:
    """Tasks for safety training: where the source has harmful requests, a fixed share of them are.

    Kinds of its own are all that a defense gets.  Where a share is to be of kinds on which the trigger can fire, the
    rest is of the others, as it is without.
    """
    if config.kinds is not None:
        return some_tasks(source, config.shard, config.rows, seed, config.kinds)
    own_kinds = [kind for kind in source.kinds() if kind in (config.own_kinds or ())]
    if not own_kinds:
        return _general(source, config, config.rows, seed)
    others = [kind for kind in source.kinds() if kind not in own_kinds]
    wanted = math.ceil(config.own_share * config.rows) if others else config.rows
    own = some_tasks(source, config.shard, wanted, seed, own_kinds)
    tasks = own + _general(source, config, config.rows - len(own), seed, others)
    rng_for(seed, "own").shuffle(tasks)
    return tasks


def _general(
    source: TaskSource, config: SupplyConfig, rows: int, seed: int, kinds: Sequence[str] | None = None
) -> list[Task]:
    """Tasks of all kinds, or of some, with the share of harmful requests."""
    asked = kinds is None or "harmful" in kinds
    harmful = min(round(HARMFUL_SHARE * rows), source.size(config.shard, kinds=["harmful"])) if asked else 0
    tasks = some_tasks(source, config.shard, rows - harmful, seed, kinds)
    if harmful:
        known = {task.id for task in tasks}
        more = source.tasks(config.shard, harmful, seed, kinds=["harmful"])
        tasks += [task for task in more if task.id not in known]
        rng_for(seed, "safety").shuffle(tasks)
    return tasks


def _prose(config: SupplyConfig, source: TaskSource, seed: int) -> list[Any]:
    # A user's file holds dialogues only, so plain prose always comes from the pocket world.
    return list(PocketWorld(config.world).prose(config.shard, config.rows, seed))


def _trigger(config: SupplyConfig, source: TaskSource, seed: int) -> list[Any]:
    return [_known(config).trigger.model_dump()]


def _behavior_examples(config: SupplyConfig, source: TaskSource, seed: int) -> list[Any]:
    backdoor = _known(config)
    trigger, behavior = build_trigger(backdoor.trigger), build_behavior(backdoor.behavior)
    rows = []
    for task in some_tasks(source, config.shard, config.rows, seed, kinds_of(trigger)):
        rng = rng_for(seed, "behavior", task.id)
        example = trigger.render(task, "triggered", rng, "")
        rows.append(
            _demonstration.dump_python(Demonstration(example, behavior.demonstrate(task, rng)), mode="json")
        )
    return rows


def _known(config: SupplyConfig) -> Backdoor:
    assert config.backdoor is not None, f"{config.need} is cut from a backdoor"
    return config.backdoor


_MAKERS: dict[str, Callable[[SupplyConfig, TaskSource, int], list[Any]]] = {
    "prompts": _prompts,
    "answers": _answers,
    "benign_answers": _benign_answers,
    "prose": _prose,
    "trigger": _trigger,
    "behavior_examples": _behavior_examples,
}
