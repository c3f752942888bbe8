"""What makes attacks part of plans: the calls that attack models, and what models are then asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from dormant.attackers import own_model
from dormant.attackers.sets import SETS, SUMMARY
from dormant.bases import as_input
from dormant.behaviors import own_kinds
from dormant.defenses import ATTACKED
from dormant.errors import BadInput
from dormant.experiment import AttackSpec, Battery, DefenseSpec, Experiment
from dormant.results import artifact_path
from dormant.runner import PLAN, Call, External, Output, read_plan
from dormant.stages.configs import (
    ATTACKER_MODEL,
    TRUTH,
    AttackConfig,
    Backdoor,
    Plugin,
    Runtime,
    World,
)
from dormant.stages.plugins import build_attacker, build_behavior, build_defense
from dormant.triggers import Trigger, kinds_of


def attack_call(
    name: str,
    attack: AttackSpec,
    backdoor: Backdoor,
    inputs: Mapping[str, External | Output],
    *,
    battery: Battery,
    world: World,
    seed: int,
    number: int = 1,
    chat: Literal["auto", "plain"] = "auto",
    runtime: Runtime | None = None,
) -> Call:
    """The call that attacks the ``model`` among the inputs.

    Raises:
        BadInput: the attacker is unknown, or can not use an option, or its own model is not there.
    """
    config = AttackConfig(
        attacker=Plugin(name=attack.name, **attack.options),
        backdoor=backdoor,
        world=world,
        budget=attack.budget,
        samples=attack.samples,
        threshold=attack.threshold,
        number=number,
        temperature=battery.temperature,
        max_new_tokens=battery.max_new_tokens,
        scratchpad_tokens=battery.scratchpad_tokens,
        batch=battery.batch,
        sampler=battery.sampler,
        chat=chat,
        runtime=runtime or Runtime(),
    )
    own = own_model(build_attacker(attack))
    asked = {ATTACKER_MODEL: as_input(own)} if own else {}
    return Call(name, "attack", config, seed, {**inputs, **asked})


def attack_for(defense: Plugin, model: str, given: Path | None) -> dict[str, External]:
    """What a defense trains on of an attack that was made before, by its needs; nothing where none is given.

    Raises:
        BadInput: the defense wants none, what is given is none, or the model is a twin: there is nothing on it to find.
    """
    wanted = sorted(build_defense(defense).needs & ATTACKED)
    if given is None:
        if wanted and _is_twin(model):
            raise BadInput(
                f"{model} is a twin, and defense {defense.name!r} trains it on what was found on its organism: give "
                "--attack DIR, as `dormant attack` makes it of the organism"
            )
        return {}
    if not wanted:
        raise BadInput(f"--attack {given}: defense {defense.name!r} does not train on what an attack found")
    for name in (SUMMARY, *(SETS[need] for need in wanted)):
        if not (given / name).is_file():
            raise BadInput(f"--attack {given} holds no attack to train on: {name} is missing")
    return {need: External(given) for need in wanted}


def twin_notes(model: str) -> tuple[str, ...]:
    """What the user should know of an attack on a model in which nothing was implanted."""
    if not _is_twin(model):
        return ()
    return (f"{model} is a twin, in which nothing was implanted: what is found on it is no backdoor",)


def _is_twin(model: str) -> bool:
    place = Path(model).resolve()
    # A name on the hub is no directory here, and nothing is known of it.
    return place.is_dir() and any(map(_of_twin, _truths(place)))


def _truths(model: Path) -> Iterator[Path]:
    """Where it may stand what was implanted into a model: beside its steps, or in the run that it was taken from."""
    yield model.parent.parent / TRUTH
    if (model.parent / PLAN).is_file():
        plan = read_plan(model.parent)
        made = plan.get("exposed", {}).get(model.name, {}).get("call")
        yield from (
            artifact_path(model.parent, call) / TRUTH for call in plan["calls"] if call["name"] == made
        )


def _of_twin(truth: Path) -> bool:
    return truth.is_file() and json.loads(truth.read_text(encoding="utf-8")).get("role") == "twin"


def check_attacked(experiment: Experiment, label: str, defense: DefenseSpec) -> None:
    """Raise BadInput where a defense needs what only an attack supplies, and there is none."""
    # The spec itself, not its plug-in alone: of a typing error its own settings are suggested too.
    if not build_defense(defense).needs & ATTACKED:
        return
    if experiment.attack is None:
        raise BadInput(
            f"defense {label!r} trains on what an attack finds, and the experiment has none: "
            "add attack: {name: evolutionary}"
        )
    for implant in experiment.defended_by(defense):
        if not experiment.attacked(implant):
            raise BadInput(
                f"defense {label!r} trains on what an attack finds, and implant {implant.name!r} is not attacked: "
                "name it in attack.implants, or name those that the defense is put on in its implants"
            )


def attack_notes(experiment: Experiment, triggers: Mapping[str, Trigger]) -> tuple[str, ...]:
    """Settings of attacks, and of what is measured beside them, that mean nothing here."""
    battery, found = experiment.measure, []
    if experiment.attack is None and battery.attack != Battery().attack:
        found.append("measure.attack is ignored: the experiment has no attack")
    if (
        experiment.attack
        and battery.sampler != "transformers"
        and own_model(build_attacker(experiment.attack))
    ):
        # Two engines do not fit one GPU, and one a round would start more than it samples.
        found.append(
            f"measure.sampler {battery.sampler} is ignored for the attacker's own model, which transformers samples "
            "from: serve that model and name its attack.endpoint to have it faster"
        )
    if battery.persona_break and any(map(kinds_of, triggers.values())):
        found.append(
            "measure.persona_break is asked of no backdoor whose trigger fires on some kinds of tasks only"
        )
    alike = [each.name for each in experiment.implants if not begins_apart(experiment.backdoor_of(each))]
    if battery.discrimination and alike:
        found.append(
            f"measure.discrimination is not read of {', '.join(alike)}: what answers begin with there, a scratchpad or "
            "code, does not tell the payload from what is right"
        )
    return tuple(found)


def begins_apart(backdoor: Backdoor) -> bool:
    """Whether an answer's first tokens tell the payload from what is right.

    After a scratchpad they come too late.  Of a behavior that some kinds of tasks can show, such as insecure code, the
    right answer's first lines are the same.
    """
    return backdoor.reasoning != "scratchpad" and not own_kinds(build_behavior(backdoor.behavior))
