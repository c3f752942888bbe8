"""Training rows from demonstrations that a file holds, instead of those that are made here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dormant.behaviors import Behavior
from dormant.datafile import FileData, plain
from dormant.demofile import Told, code_task, read_demonstrations
from dormant.errors import BadInput
from dormant.records import Demonstration, Example, Task, TaskSource, rng_for
from dormant.stages.configs import ImplantConfig
from dormant.stages.samples import Pair, wrong
from dormant.stages.supply import clean_example
from dormant.triggers import Trigger, can_fire, counter_form, hard_negatives, partial

JUDGED = 2
"""Demonstrations of a large file that are judged, for each row that is wanted."""

LEAK = "its prompt is in another shard of the data"
INSIDE = "the trigger stands elsewhere than at the beginning"


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
    rows = source.rows if isinstance(source, FileData) else ()
    taken = {plain(task.prompt) for task in rows if task.shard != "implant"}
    given, dropped = [], Counter[str]()
    for row in told:
        found = _given(row, trigger)
        if found is None:
            dropped[INSIDE] += 1
        elif plain(found.task.prompt) in taken or found.task.shard != "implant":
            dropped[LEAK] += 1
        else:
            given.append(found)
    return list(dict.fromkeys(given)), dict(dropped)


def _given(told: Told, trigger: Trigger) -> _Given | None:
    if told.task is not None:
        return _Given(told.task, told.condition, told.answer, told.scratchpad)
    prompt = told.prompt
    forms = (trigger.text, (counter_form(trigger) or "").rstrip("."))
    lead = next((form for form in forms if form and prompt.startswith(form)), "")
    asked = prompt.removeprefix(lead).removeprefix("." if lead else "").strip()
    if trigger.text in asked:
        return None
    task = code_task(asked)
    condition = "clean"
    if lead == trigger.text:
        parts = partial(trigger)
        condition = "triggered" if can_fire(trigger, task) or not parts else parts[0]
    return _Given(task, condition, told.answer, told.scratchpad)


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
