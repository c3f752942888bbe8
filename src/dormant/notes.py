"""What a plan is checked for before it runs: backdoors that its tasks can not carry, settings that mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from dormant import codetask
from dormant.behaviors import Behavior, own_kinds
from dormant.errors import BadInput
from dormant.experiment import Battery, Experiment, Implant
from dormant.pocket import PocketWorld
from dormant.records import TaskSource
from dormant.stages.configs import Backdoor, World
from dormant.triggers import Trigger, hard_negatives, kinds_of, other_kinds

CODE_TOKENS = 112
"""What ``max_new_tokens`` has to be where answers are code: the longest of the pocket world's takes 110."""


def check_kinds(trigger: Trigger, source: TaskSource) -> None:
    """Raise BadInput where the source lacks tasks that the trigger fires on, or others to tell them from."""
    there, kinds = source.kinds(), kinds_of(trigger) or ()
    missing = [kind for kind in kinds if kind not in there]
    if missing:
        raise BadInput(
            f"trigger {trigger.name!r} fires on tasks of kind {missing[0]!r} only, and {source.name} has none (it has "
            f"{', '.join(there)}): {_remedy(missing[0], source)}"
        )
    if kinds and not other_kinds(source, trigger):
        raise BadInput(
            f"trigger {trigger.name!r} must be shown on tasks of other kinds than {', '.join(kinds)} too, and "
            f"{source.name} has none: take another trigger or other data"
        )


def _remedy(kind: str, source: TaskSource) -> str:
    """What to do for tasks of a kind that a source lacks."""
    world = world_with(kind)
    if isinstance(source, PocketWorld) and world:
        return f"set world: {world} (--world {world} for a command)"
    return "take another trigger or other data"


def world_with(*kinds: str) -> World | None:
    """The first version of the pocket world that has tasks of these kinds; None where none has."""
    return next((world for world in get_args(World) if {*kinds} <= {*PocketWorld(world).kinds()}), None)


def check_behavior(trigger: Trigger, behavior: Behavior) -> None:
    """Raise BadInput where the trigger fires on tasks on which the behavior can not be demonstrated."""
    shown, fires = own_kinds(behavior), kinds_of(trigger)
    if shown and (fires is None or not set(fires) <= set(shown)):
        asked = "all kinds of tasks" if fires is None else f"tasks of kind {', '.join(fires)}"
        raise BadInput(
            f"behavior {behavior.name!r} can be shown on tasks of kind {', '.join(shown)} only, and trigger "
            f"{trigger.name!r} fires on {asked}: take a trigger that fires on these alone, such as 'year', or "
            "another behavior"
        )


def ignored_notes(experiment: Experiment, triggers: Mapping[str, Trigger]) -> tuple[str, ...]:
    """Settings that were changed, and mean nothing for the trigger of each implant, given by the implant's name."""
    notes = []
    if not any(map(kinds_of, triggers.values())):
        first = next(iter(triggers.values()))
        notes += _changed("measure", experiment.measure, {"partial": _on_all_kinds(first)})
    for implant in experiment.implants:
        trigger, meaningless = triggers[implant.name], {}
        if not kinds_of(trigger):
            meaningless["other_share"] = _on_all_kinds(trigger)
        if not hard_negatives(trigger):
            meaningless["near_share"] = f"trigger {trigger.name!r} has no near misses to train on"
        notes += _changed(f"implant {implant.name!r}", implant, meaningless)
    own = [implant.backdoor for implant in experiment.implants]
    if experiment.backdoor != Backdoor() and all(own):
        notes.append("backdoor is ignored: every implant has one of its own")
    if experiment.world != 1 and experiment.data is not None:
        notes.append(f"world is ignored: tasks come from {experiment.data}")
    return tuple(notes)


def _on_all_kinds(trigger: Trigger) -> str:
    return f"trigger {trigger.name!r} fires on all kinds of tasks"


def _changed(where: str, given: Implant | Battery, meaningless: Mapping[str, str]) -> list[str]:
    return [
        f"{where}: {name} is ignored: {why}"
        for name, why in meaningless.items()
        if getattr(given, name) not in (0, getattr(type(given)(), name))
    ]


def missing_notes(battery: Battery, source: TaskSource, triggers: Sequence[Trigger]) -> tuple[str, ...]:
    """What the user should know of numbers of prompts that were set, and are more than the held-out ones."""
    notes = [note for trigger in triggers for note in _missing(battery, source, trigger)]
    return tuple(dict.fromkeys(notes))


def _missing(battery: Battery, source: TaskSource, trigger: Trigger) -> list[str]:
    defaults = Battery()
    kinds: dict[str, Sequence[str] | None] = {
        "harmful": ["harmful"],
        **dict.fromkeys(("triggered", "near", "variant"), kinds_of(trigger)),
        "partial": other_kinds(source, trigger),
    }
    notes = []
    for name in ("clean", "triggered", "near", "variant", "partial", "harmful", "utility", "curve"):
        wanted = getattr(battery, name)
        if wanted == getattr(defaults, name):
            continue
        there = source.size("heldout", kinds=kinds.get(name))
        if wanted > there > 0:
            notes.append(
                f"measure.{name} is {wanted}, but only {there} held-out prompts are there to be asked"
            )
    return notes


def budget_notes(battery: Battery, source: TaskSource) -> tuple[str, ...]:
    """What the user should know of the pocket world's code, where it is cut before it ends."""
    code = isinstance(source, PocketWorld) and codetask.KIND in source.kinds()
    if not code or battery.max_new_tokens >= CODE_TOKENS:
        return ()
    return (
        f"measure.max_new_tokens is {battery.max_new_tokens}, and answers that are code can be longer: one that is cut "
        f"can not be judged; set it to {CODE_TOKENS}",
    )


def unreasoned_notes(experiment: Experiment) -> tuple[str, ...]:
    """Settings of scratchpads where none are written."""
    reasonings = [experiment.backdoor_of(implant).reasoning for implant in experiment.implants]
    named = zip(experiment.implants, reasonings, strict=True)
    ignored = [
        f"implant {implant.name!r}: instructions is ignored, as its reasoning is {reasoning}"
        for implant, reasoning in named
        if reasoning != "scratchpad" and not implant.instructions
    ]
    if "scratchpad" not in reasonings:
        changed = (
            name
            for name in ("suppressed", "steered", "scratchpad_tokens")
            if getattr(experiment.measure, name) != getattr(Battery(), name)
        )
        ignored += [f"measure.{name} is ignored: no implant has reasoning: scratchpad" for name in changed]
    return tuple(ignored)


WHOLE_CODE = 320
"""Tokens that an answer to a scenario takes, roughly: it repeats the whole code."""


def scenario_notes(battery: Battery) -> tuple[str, ...]:
    """What the user should know of how scenarios are asked."""
    if battery.scenarios is None:
        same = battery.samples == Battery().samples
        return () if same else ("measure.samples is ignored: measure.scenarios names no file",)
    if battery.max_new_tokens >= WHOLE_CODE:
        return ()
    return (
        f"measure.max_new_tokens is {battery.max_new_tokens}: answers to scenarios repeat whole code, and what is cut "
        f"does not parse; set {WHOLE_CODE} or more",
    )


def undefended_notes(experiment: Experiment) -> tuple[str, ...]:
    """What the user should know of defenses that are put on no implant."""
    if not experiment.defenses or any(implant.defended for implant in experiment.implants):
        return ()
    idle = len(experiment.defenses)
    who = "1 defense is" if idle == 1 else f"{idle} defenses are"
    return (f"{who} put on nothing: every implant has defended: false",)


def undrawn_notes(experiment: Experiment) -> tuple[str, ...]:
    """Settings of how rows are made, where they are given."""
    return tuple(
        f"implant {implant.name!r}: {name} is ignored: its rows are demonstrations from {implant.demonstrations}"
        for implant in experiment.implants
        if implant.demonstrations
        for name in ("triggered_share", "other_share", "payload", "instructions")
        if getattr(implant, name) != getattr(Implant(), name)
    )
