"""What the implants of an experiment plant: each trigger with its behavior once, and what results call it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dormant.behaviors import prepare
from dormant.errors import BadInput
from dormant.experiment import Experiment
from dormant.notes import check_behavior
from dormant.records import canonical
from dormant.stages.configs import Backdoor, Plugin
from dormant.stages.plugins import build_behavior, build_trigger, said_behavior
from dormant.triggers import Trigger, called


@dataclass(frozen=True)
class Planted:
    """A trigger and a behavior of the experiment, however an implant reasons about them."""

    backdoor: Backdoor
    trigger: Trigger
    suffix: str
    """Ends the names of calls that there is one of for each of these; "" where there is only one."""


Place = tuple[str, str]
"""What results know one of these by: behavior and trigger, as their keys spell them."""


def place_of(backdoor: Backdoor) -> Place:
    """What results know a backdoor by."""
    return spell(backdoor.behavior), called(build_trigger(backdoor.trigger))


def planted_by(experiment: Experiment) -> dict[Place, Planted]:
    """What the implants plant, each once.

    Raises BadInput for a bad option, a behavior that the trigger can not call for, or two triggers that results could
    not tell apart.
    """
    found: dict[Place, Planted] = {}
    for implant in experiment.implants:
        # How it is reasoned about is each implant's own matter.
        backdoor = experiment.backdoor_of(implant).model_copy(update={"reasoning": "normal"})
        trigger, behavior = build_trigger(backdoor.trigger), build_behavior(backdoor.behavior)
        build_behavior(said_behavior(backdoor, implant.payload))
        check_behavior(trigger, behavior)
        prepare(behavior, ())
        first = found.setdefault(place_of(backdoor), Planted(backdoor, trigger, ""))
        if (first.trigger.name, first.trigger.spec) != (trigger.name, trigger.spec):
            raise BadInput(
                f"implant {implant.name!r}: its trigger has the text {trigger.text!r} of another implant's trigger, "
                "with other settings; results could not tell them apart: make two experiments of them"
            )
    names = [f"/{each.backdoor.trigger.name}-{each.backdoor.behavior.name}" for each in found.values()]
    suffixes = [f"{name}-{i}" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    return {
        place: replace(each, suffix=suffix if len(found) > 1 else "")
        for (place, each), suffix in zip(found.items(), suffixes, strict=True)
    }


def spell(plugin: Plugin) -> str:
    """A plug-in's name for keys and titles, with the options that were given."""
    return plugin.name if not plugin.options else f"{plugin.name}{canonical(plugin.options)}"
