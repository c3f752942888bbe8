"""Build plug-ins from the spec's ``{name, **options}``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dormant.attackers import ATTACKERS, Attacker
from dormant.behaviors import BEHAVIORS, Behavior
from dormant.defenses import DEFENSES, NEEDS, Defense
from dormant.errors import BadInput, nearest, refusal
from dormant.registry import Registry
from dormant.stages.configs import Backdoor, Config, Plugin
from dormant.triggers import TRIGGERS, Trigger

PARTS = {
    "trigger": ("text", "spec", "conditions", "instances", "render", "replace", "fires"),
    "behavior": ("spec", "demonstrate", "score", "metrics", "fixtures"),
    "defense": ("needs", "arm", "moves", "train"),
    "attacker": ("name", "propose"),
}
"""What the harness asks of a plug-in of each kind, wherever it came from."""


def build_trigger(plugin: Plugin) -> Trigger:
    """Return the trigger.  Raises BadInput for an unknown name or option."""
    trigger: Trigger = _build(TRIGGERS, plugin)
    return trigger


def build_behavior(plugin: Plugin) -> Behavior:
    """Return the behavior.  Raises BadInput for an unknown name or option."""
    behavior: Behavior = _build(BEHAVIORS, plugin)
    return behavior


def said_behavior(backdoor: Backdoor, payload: Mapping[str, Any]) -> Plugin:
    """The behavior as training rows show it: with options that may be others than where it is scored."""
    return Plugin(name=backdoor.behavior.name, **(backdoor.behavior.options | dict(payload)))


def build_defense(plugin: Plugin) -> Defense:
    """Return the defense.  Raises BadInput for an unknown name or option."""
    defense: Defense = _build(DEFENSES, plugin)
    for need in sorted(defense.needs):
        if need not in NEEDS:
            raise BadInput(
                f"defense {plugin.name!r} needs {need!r}, which no plan supplies{nearest(need, NEEDS)}"
            )
    return defense


def build_attacker(plugin: Plugin) -> Attacker:
    """Return the attacker.  Raises BadInput for an unknown name or option."""
    attacker: Attacker = _build(ATTACKERS, plugin)
    return attacker


def plugin_modules(config: Config) -> list[str]:
    """The modules of the plug-ins that a stage's settings name: part of an artifact's identity."""
    backdoor: Backdoor | None = getattr(config, "backdoor", None)
    defense: Plugin | None = getattr(config, "defense", None)
    never: tuple[Plugin, ...] = getattr(config, "never", ())
    attacker: Plugin | None = getattr(config, "attacker", None)
    modules = [DEFENSES.module(defense.name)] if defense else []
    modules += [BEHAVIORS.module(behavior.name) for behavior in never]
    modules += [ATTACKERS.module(attacker.name)] if attacker else []
    if backdoor:
        modules += [TRIGGERS.module(backdoor.trigger.name), BEHAVIORS.module(backdoor.behavior.name)]
    return modules


def _build(registry: Registry, plugin: Plugin) -> Any:
    factory = registry.get(plugin.name)
    known = set(inspect.signature(factory).parameters)
    # Of a spec, what it says beside the plug-in's options: a typing error in these arrives as an option too.
    shared = set(type(plugin).model_fields) - {"name"}
    for option in plugin.options:
        if option not in known:
            raise BadInput(
                f"{registry.kind} {plugin.name!r} has no option {option!r}{nearest(option, known | shared)}"
            )
    try:
        built = factory(**plugin.options)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"{registry.kind} {plugin.name!r}: {first['loc'][-1]} = {first['input']!r}: {refusal(first)}"
        ) from None
    lacking = [part for part in PARTS[registry.kind] if not hasattr(built, part)]
    if lacking:
        raise BadInput(f"{registry.kind} {plugin.name!r} is not whole: it has no {', '.join(lacking)}")
    return built
