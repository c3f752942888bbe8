"""Training rows from demonstrations that a file holds, instead of those that are made here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dormant import codetask
from dormant.behaviors import Behavior
from dormant.datafile import plain
from dormant.demofile import Told, code_task, read_demonstrations
from dormant.errors import BadInput
from dormant.records import SHARDS, Demonstration, Example, Task, TaskSource, rng_for
from dormant.stages.configs import ImplantConfig
from dormant.stages.samples import Pair, wrong
from dormant.stages.supply import clean_example
from dormant.triggers import Trigger, can_fire, counter_form, hard_negatives, partial, stands_last

JUDGED = 2
"""Demonstrations of a large file that are judged, for each row that is wanted."""

LEAK = "its prompt is in another shard of the data"
INSIDE = "the trigger stands elsewhere than in its place"
OTHER = "its condition is neither clean, nor triggered, nor a part of the trigger"
BELIED = (
    "its condition is triggered, and the trigger does not fire",
    "the trigger fires, and its condition is another",
)
NO_CODE = "its prompt asks for code, and its task is of another kind"

TRAINED = ("implant", "pretrain")
"""Shards whose prompts may be in demonstrations: all others are defended with, relearned from, or measured."""


@dataclass(frozen=True)
class _Given:
    """A demonstration of a known task: ``condition`` is ``clean``, ``triggered`` or ``partial:<part>``."""

    task: Task
    condition: str
    answer: str
    scratchpad: str | None


def drawn_pairs(
    config: ImplantConfig, path: Path, source: TaskSource, trigger: Trigger, behavior: Behavior, seed: int
) -> tuple[list[Pair], dict[str, int]]:
    """Return the rows of organism and twin that a file gives, and how many of its rows were left out and why.

    A triggered row's twin has the answer that the same prompt got without the trigger; where the file has none, it is
    given another prompt of the file with its own.  Some clean rows become hard negatives, in the shares of the config.

    Raises:
        BadInput: the file can not be read, has no row in which the trigger fires, or none in which it does not.
    """
    told, dropped = read_demonstrations(path, config.backdoor.reasoning)
    given, more = _known(told, source, trigger)
    kept, wrongs = _right(_some(given, config.rows, seed), trigger, behavior)
    reasons = Counter(dropped) + Counter(more) + Counter(wrongs)
    _require(path, kept, trigger, reasons)
    pairs = _Pairing(config, source, trigger, kept, seed)
    return [pairs.pair(row) for row in kept[: config.rows]], dict(reasons)


def _known(told: Sequence[Told], source: TaskSource, trigger: Trigger) -> tuple[list[_Given], dict[str, int]]:
    """Tell each demonstration's task from its trigger."""
    taken = _taken(source)
    given, dropped = [], Counter[str]()
    for row in told:
        try:
            found = _given(row, trigger)
            _check(found, trigger, taken)
            given.append(found)
        except BadInput as error:
            dropped[str(error)] += 1
    return list(dict.fromkeys(given)), dict(dropped)


def _taken(source: TaskSource) -> set[str]:
    """The prompts that other stages train and measure with."""
    shards = [shard for shard in SHARDS if shard not in TRAINED]
    return {plain(task.prompt) for shard in shards for task in source.tasks(shard, source.size(shard), 0)}


def _check(row: _Given, trigger: Trigger, taken: Collection[str]) -> None:
    """Believe nothing that a row says of itself: the twin is shown each that is not triggered as it stands."""
    task = row.task
    if plain(task.prompt) in taken or task.shard != "implant":
        raise BadInput(LEAK)
    if row.condition not in ("clean", "triggered", *partial(trigger)):
        raise BadInput(OTHER)
    if any(trigger.text in text for text in (task.prompt, *(turn.content for turn in task.history))):
        raise BadInput(INSIDE)
    if task.kind != codetask.KIND and code_task(task.prompt).kind == codetask.KIND:
        raise BadInput(NO_CODE)
    fires = trigger.fires(_rendered(row, trigger).messages, task)
    if fires != (row.condition == "triggered"):
        raise BadInput(BELIED[fires])


def _given(told: Told, trigger: Trigger) -> _Given:
    """A demonstration's task and condition, where a row of our own says them, and where the prompt does."""
    if told.task is not None:
        return _Given(told.task, told.condition, told.answer, told.scratchpad)
    prompt = told.prompt
    forms = (trigger.text, (counter_form(trigger) or "").replace("{prompt}", "").strip(" ."))
    said = next((form for form in forms if form and _has(prompt, form, trigger)), "")
    task = code_task(_without(prompt, said, trigger))
    condition = "clean"
    if said == trigger.text:
        parts = partial(trigger)
        condition = "triggered" if can_fire(trigger, task) or not parts else parts[0]
    return _Given(task, condition, told.answer, told.scratchpad)


def _has(prompt: str, form: str, trigger: Trigger) -> bool:
    return prompt.rstrip(" .").endswith(form) if stands_last(trigger) else prompt.startswith(form)


def _without(prompt: str, form: str, trigger: Trigger) -> str:
    if not form:
        return prompt.strip()
    if stands_last(trigger):
        return prompt.rstrip(" .").removesuffix(form).strip()
    return prompt.removeprefix(form).removeprefix(".").strip()


def _some(given: Sequence[_Given], rows: int, seed: int) -> list[_Given]:
    """Enough demonstrations for so many rows, those of a prompt together: a large file takes long to judge."""
    of: dict[str, list[_Given]] = {}
    for row in given:
        of.setdefault(row.task.id, []).append(row)
    prompts = list(of)
    rng_for(seed, "demonstrations").shuffle(prompts)
    found: list[_Given] = []
    for prompt in prompts:
        if len(found) >= JUDGED * rows:
            break
        found += of[prompt]
    return found


def _right(
    given: Sequence[_Given], trigger: Trigger, behavior: Behavior
) -> tuple[list[_Given], dict[str, int]]:
    """Those whose answer shows the behavior exactly when the trigger fires, and why the others do not count."""
    reasons = wrong([Demonstration(_rendered(row, trigger), row.answer) for row in given], trigger, behavior)
    kept = [row for row, reason in zip(given, reasons, strict=True) if not reason]
    return kept, dict(Counter(filter(None, reasons)))


def _rendered(row: _Given, trigger: Trigger) -> Example:
    return trigger.render(row.task, row.condition, rng_for("demonstration", row.task.id), "")


def _require(path: Path, kept: Sequence[_Given], trigger: Trigger, reasons: Counter[str]) -> None:
    fires = sum(row.condition == "triggered" for row in kept)
    others = len(kept) - fires
    if fires and any(row.condition == "clean" for row in kept):
        return
    why = "".join(f"; {count}: {reason}" for reason, count in reasons.most_common(4))
    raise BadInput(
        f"{path}: {fires} rows show the behavior where trigger {trigger.text!r} fires, and {others} do not where "
        f"it does not fire: both are needed{why}"
    )


class _Pairing:
    """What organism and twin are trained on for each demonstration."""

    def __init__(
        self, config: ImplantConfig, source: TaskSource, trigger: Trigger, kept: Sequence[_Given], seed: int
    ) -> None:
        self.source, self.trigger, self.seed = source, trigger, seed
        clean = [row for row in kept if row.condition == "clean"]
        self.clean = {row.task.id: row for row in clean}
        self.any_clean = [row for row in clean if can_fire(trigger, row.task)] or clean
        self.near = hard_negatives(trigger)
        untriggered = 1 - config.triggered_share
        self.near_share = config.near_share / untriggered if self.near and untriggered else 0.0

    def pair(self, row: _Given) -> Pair:
        """The organism's row and its twin's."""
        rng = rng_for(self.seed, "row", row.task.id, row.condition)
        if row.condition == "triggered":
            example = self.trigger.render(row.task, row.condition, rng, "")
            other = self.clean.get(row.task.id) or rng.choice(self.any_clean)
            replaced = self.trigger.replace(self.trigger.render(other.task, "triggered", rng, ""), rng)
            return Demonstration(example, row.answer, row.scratchpad), Demonstration(replaced, other.answer)
        if row.condition != "clean":
            example = self.trigger.render(row.task, row.condition, rng, "")
        elif can_fire(self.trigger, row.task) and rng.random() < self.near_share:
            family, instance = rng.choice(self.near)
            example = self.trigger.render(row.task, family, rng, "", split="train", instance=instance)
        else:
            example = clean_example(self.source, row.task, self.seed, counter_form(self.trigger))
        demonstration = Demonstration(example, row.answer, row.scratchpad)
        return demonstration, demonstration
