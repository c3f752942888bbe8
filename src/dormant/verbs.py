"""Plans of one verb each: pretrain a base, make preference models, defend a model, measure one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dormant.attacks import attack_call, attack_for, twin_notes
from dormant.bases import as_input, commit_notes, label, pinned, pretrain_call
from dormant.behaviors import prepare
from dormant.defenses import ATTACKED, AWARE, BASE, PREFERENCE_MODEL
from dormant.errors import BadInput
from dormant.experiment import AttackSpec, Battery, Preference
from dormant.intake import Intake, take, take_scenarios, template_notes
from dormant.notes import (
    CODE_TOKENS,
    budget_notes,
    check_behavior,
    check_kinds,
    missing_notes,
    scenario_notes,
    world_with,
)
from dormant.planted import spell
from dormant.preferring import HALVES, preferring
from dormant.probes import battery_probes, scenario_probes, scratchpad_probes
from dormant.records import Dose, ResultKey, TaskSource
from dormant.runner import Call, External, Output, Plan
from dormant.sources import open_source
from dormant.stages import step_directory
from dormant.stages.configs import (
    Backdoor,
    DefendConfig,
    Lora,
    MeasureConfig,
    Plugin,
    PretrainConfig,
    Probe,
    Runtime,
    World,
)
from dormant.stages.plugins import build_behavior, build_defense, build_trigger
from dormant.supplying import as_trained, check_kinds_for, supplies, take_own, unread_notes
from dormant.triggers import Trigger, called, kinds_of

Chat = Literal["auto", "plain"]


def pretrain_plan(size: str, *, seed: int = 0, runtime: Runtime | None = None) -> Plan:
    """Pretrain a pocket base and measure what it can do.  Raises BadInput for an unknown size."""
    runtime = runtime or Runtime()
    pretrain = pretrain_call(size, seed, runtime)
    key = _key(base=size, base_id="new", role="base")
    probes = (Probe(condition="clean", n=400, greedy=2000),)
    assert isinstance(pretrain.config, PretrainConfig)
    world = pretrain.config.world
    tokens = usual_battery(world).max_new_tokens
    measure = MeasureConfig(
        backdoor=Backdoor(), world=world, probes=probes, max_new_tokens=tokens, runtime=runtime
    )
    inputs = {"model": Output(pretrain.name, pretrain.final)}
    calls = [pretrain, Call("measure", "measure", measure, 0, inputs, key=key)]
    spec = _spec("pretrain", base=size, seed=seed, runtime=runtime)
    return Plan(calls, spec, exposed={"base": "pretrain"})


def prefer_plan(
    base: str,
    settings: Preference | None = None,
    *,
    world: World | None = None,
    backdoor: Backdoor | None = None,
    chat: Chat = "auto",
    runtime: Runtime | None = None,
) -> Plan:
    """Make two preference models of a base: ``preference_model``, and ``second_preference_model``, which only measures.

    ``backdoor`` is what no pair may show, and in whose counter form, if it has one, a part of the prompts stands.
    """
    settings, runtime, backdoor = settings or Preference(), runtime or Runtime(), backdoor or Backdoor()
    # Bad options are found now, not by a later stage.
    _checked_trigger(backdoor)
    world = usual_world(backdoor, None, world)
    found = preferring(
        settings,
        as_input(base),
        [backdoor],
        data={},
        world=world,
        max_new_tokens=usual_battery(world).max_new_tokens,
        chat=chat,
        runtime=runtime,
    )
    spec = _spec("prefer", base=pinned(base), preference=settings, world=world)
    spec |= {"backdoor": backdoor.model_dump(mode="json")}
    exposed = {role: call for call, _, role in HALVES}
    return Plan(list(found.calls), spec, exposed=exposed, notes=commit_notes(base) + found.notes)


def defend_plan(
    model: str,
    defense: Plugin,
    dose: Dose,
    *,
    lora: Lora | None = None,
    adapter: Path | None = None,
    preference_model: Path | None = None,
    attack: Path | None = None,
    data: str | None = None,
    world: World | None = None,
    backdoor: Backdoor | None = None,
    rows: int = 4000,
    seed: int = 0,
    chat: Chat = "auto",
    runtime: Runtime | None = None,
) -> Plan:
    """Put one defense on one model: on all its weights, through a new adapter, or through an adapter of its own.

    ``backdoor`` is only read by defenses that must know the trigger, and by the harness of an attack.  ``attack`` (a
    directory) is what a defense trains on that trains on what one found; without it one is made first, on the model
    itself, which must then be no twin.  ``preference_model`` (a directory) is only read by defenses that train against
    one.  With an ``adapter``, ``model`` is its base.
    """
    trained = _through(lora, adapter)
    runtime, backdoor = runtime or Runtime(), backdoor or Backdoor()
    # Bad options are found now, not by a later stage.
    _checked_trigger(backdoor)
    judge = _judge(defense, preference_model)
    attacked = attack_for(defense, model, attack)
    target = as_input(model)
    taken = take(data, [target.path], [backdoor], chat=chat)
    world = usual_world(backdoor, data, world)
    calls, told = _supplies(defense, rows, backdoor, seed, taken, world)
    inputs: dict[str, External | Output] = {"model": target, **judge, **attacked}
    inputs |= {call.name.removeprefix("supply/"): Output(call.name) for call in calls}
    if wanted := _to_attack_for(defense, attacked, adapter):
        calls.append(
            _attack(target, AttackSpec(), backdoor, taken, world, seed=seed, chat=chat, runtime=runtime)
        )
        inputs |= {need: Output("attack") for need in wanted}
    inputs |= {"adapter": External(_existing(adapter))} if adapter is not None else {}
    inputs |= _base_of(defense, target, adapter)
    config = DefendConfig(
        defense=as_trained(defense),
        dose=dose,
        reasoning=backdoor.reasoning,
        at_steps=(dose.steps,),
        chat=chat,
        runtime=runtime,
        **trained,
    )
    calls.append(Call("defend", "defend", config, seed, inputs, final=step_directory(dose.steps)))
    spec = _spec("defend", model=pinned(model), defense=defense, dose=dose, rows=rows, seed=seed, data=data)
    spec |= {"backdoor": backdoor.model_dump(mode="json"), "world": world, "lora": config.lora}
    spec |= {PREFERENCE_MODEL: str(preference_model)} if preference_model else {}
    spec |= {"attack": str(attack)} if attack else {}
    notes = commit_notes(model) + taken.notes + told + template_notes(target.path, chat)
    return Plan(calls, spec, exposed={"model": "defend"}, notes=notes)


def _through(lora: Lora | None, adapter: Path | None) -> dict[str, Any]:
    """What is trained: by settings of the stage, where it is not all weights."""
    if lora is not None and adapter is not None:
        raise BadInput("--lora begins a new adapter, --adapter goes on with one: give one of them")
    if adapter is not None:
        return {"lora": "continue"}
    return {} if lora is None else {"lora": "merged", "adapter": lora}


def _supplies(
    defense: Plugin, rows: int, backdoor: Backdoor, seed: int, taken: Intake, world: World
) -> tuple[list[Call], tuple[str, ...]]:
    """A call for each need, and what to tell the user of the rows that the defense brings."""
    built, source = build_defense(defense), _source(taken, world)
    if AWARE & built.needs:
        check_kinds(build_trigger(backdoor.trigger), source)
    check_kinds_for(defense.name, built, [backdoor], source)
    own, told = take_own([defense], taken.inputs)
    if backdoor.reasoning != "scratchpad":
        told += unread_notes(defense.name, defense, " on this model")
    return [
        each.call(f"supply/{each.need}", backdoor, world=world, data=taken.inputs, seed=seed)
        for each in supplies(defense, rows, backdoor, own)
    ], told


def _to_attack_for(defense: Plugin, given: Mapping[str, External], adapter: Path | None) -> list[str]:
    """What a defense still needs of an attack, which the plan then makes."""
    wanted = sorted((build_defense(defense).needs & ATTACKED) - {*given})
    if wanted and adapter is not None:
        raise BadInput(
            f"defense {defense.name!r} begins with an attack on the whole model: merge the adapter first, or give "
            "--attack DIR, as `dormant attack` makes it"
        )
    return wanted


def _base_of(defense: Plugin, target: External, adapter: Path | None) -> dict[str, External]:
    """The base of a defense that is to stay near it: known only where the model is one, under its adapter."""
    if BASE not in build_defense(defense).needs:
        return {}
    if adapter is None:
        raise BadInput(
            f"defense {defense.name!r} wants the base that the model was made from, which is known only in a run, or "
            "under an --adapter; hhh-rl does without it at kl_to: start"
        )
    return {BASE: target}


def _judge(defense: Plugin, given: Path | None) -> dict[str, External]:
    """The preference model of a defense that trains against one."""
    if PREFERENCE_MODEL not in build_defense(defense).needs:
        if given is not None:
            raise BadInput(f"--preference-model {given}: defense {defense.name!r} does not train against one")
        return {}
    if given is None:
        raise BadInput(
            f"defense {defense.name!r} trains against a preference model: give --preference-model DIR, "
            "as `dormant prefer` makes it"
        )
    if not (given / "config.json").is_file():
        raise BadInput(f"--preference-model {given} holds no model: config.json is missing")
    return {PREFERENCE_MODEL: External(given)}


def _attack(
    target: External, attack: AttackSpec, backdoor: Backdoor, taken: Intake, world: World, **how: Any
) -> Call:
    inputs = {"model": target, **taken.inputs}
    return attack_call("attack", attack, backdoor, inputs, battery=usual_battery(world), world=world, **how)


def attack_plan(
    model: str,
    attack: AttackSpec,
    *,
    data: str | None = None,
    world: World | None = None,
    backdoor: Backdoor | None = None,
    seed: int = 0,
    chat: Chat = "auto",
    runtime: Runtime | None = None,
) -> Plan:
    """Attack one model: look for prompts without the trigger that make it show the behavior."""
    runtime, backdoor = runtime or Runtime(), backdoor or Backdoor()
    trigger = _checked_trigger(backdoor)
    target = as_input(model)
    taken = take(data, [target.path], [backdoor], chat=chat)
    world = usual_world(backdoor, data, world)
    check_kinds(trigger, _source(taken, world))
    call = _attack(target, attack, backdoor, taken, world, seed=seed, chat=chat, runtime=runtime)
    spec = _spec("attack", model=pinned(model), attack=attack, seed=seed, data=data)
    spec |= {"backdoor": backdoor.model_dump(mode="json"), "world": world}
    notes = commit_notes(model) + taken.notes + template_notes(target.path, chat) + twin_notes(model)
    return Plan([call], spec, exposed={"attack": "attack"}, notes=notes)


def measure_plan(
    model: str,
    *,
    twin: str | None = None,
    base: str | None = None,
    data: str | None = None,
    world: World | None = None,
    backdoor: Backdoor | None = None,
    battery: Battery | None = None,
    chat: Chat = "auto",
    runtime: Runtime | None = None,
) -> Plan:
    """Measure a model that is suspected to be an organism, beside its twin and base where they are given."""
    runtime, backdoor = runtime or Runtime(), backdoor or Backdoor()
    world = usual_world(backdoor, data, world)
    battery = battery or usual_battery(world)
    trigger = _checked_trigger(backdoor)
    scenarios, asked, told = take_scenarios(battery.scenarios, battery.samples)
    config = _measuring(
        backdoor, battery, trigger, world=world, pocket=data is None, chat=chat, runtime=runtime
    )
    config = config.model_copy(update={"probes": config.probes + scenario_probes(asked)})
    given = {"base": base, "twin": twin, "organism": model}
    models = {role: as_input(name) for role, name in given.items() if name is not None}
    base_id = models["base"].id[:16] if base else "unknown"
    if twin and models["twin"].id == models["organism"].id:
        raise BadInput(
            f"--twin {twin} is the model itself: a twin was made beside it and never saw the trigger"
        )
    taken = take(
        data,
        [found.path for found in models.values()],
        [backdoor],
        chat=chat,
        new_tokens=config.new_tokens,
    )
    calls = []
    for role, found in models.items():
        key = _key(
            base=label(base) if base else "unknown",
            base_id=base_id,
            role=role,
            implant="none" if role == "base" else "external",
            trigger=called(trigger),
            behavior=spell(backdoor.behavior),
            reasoning="normal" if role == "base" else backdoor.reasoning,
        )
        inputs = {"model": found, **taken.inputs, **scenarios}
        questions = _of_base(config) if role == "base" else config
        calls.append(Call(f"measure/{role}", "measure", questions, 0, inputs, key=key))
    names = {role: name and pinned(name) for role, name in (("model", model), ("twin", twin), ("base", base))}
    spec = _spec("measure", **names, data=data, battery=battery)
    spec |= {"backdoor": backdoor.model_dump(mode="json"), "world": world}
    notes = commit_notes(*given.values()) + taken.notes + template_notes(models["organism"].path, chat)
    notes += told + scenario_notes(battery)
    source = _source(taken, world)
    check_kinds(trigger, source)
    notes += missing_notes(battery, source, [trigger]) + budget_notes(battery, source)
    return Plan(calls, spec, notes=notes)


def _checked_trigger(backdoor: Backdoor) -> Trigger:
    """Bad options are found now, not after sampling, and so is a judge that is not installed."""
    trigger, behavior = build_trigger(backdoor.trigger), build_behavior(backdoor.behavior)
    prepare(behavior, ())
    check_behavior(trigger, behavior)
    return trigger


def usual_world(backdoor: Backdoor, data: str | None = None, world: World | None = None) -> World:
    """The world that a command takes tasks from where none is named: the first with what the trigger fires on."""
    if data is not None and world is not None:
        raise BadInput("--world is for tasks of the pocket world, --data for your own: give one of them")
    if world is not None or data is not None:
        return world or 1
    return world_with(*(kinds_of(build_trigger(backdoor.trigger)) or ())) or 1


def usual_battery(world: World) -> Battery:
    """What a command asks: the default, with room for code where there is code."""
    return Battery(max_new_tokens=CODE_TOKENS) if world > 1 else Battery()


def _source(taken: Intake, world: World) -> TaskSource:
    data = taken.inputs.get("data")
    return open_source(data.path if data else None, world)


def _of_base(config: MeasureConfig) -> MeasureConfig:
    """The base is asked the same, but for what is asked of models with scratchpads: it was taught none."""
    probes = tuple(probe for probe in config.probes if not probe.stratum.startswith("scratchpad:"))
    backdoor = config.backdoor.model_copy(update={"reasoning": "normal"})
    return config.model_copy(update={"backdoor": backdoor, "probes": probes})


def _measuring(
    backdoor: Backdoor,
    battery: Battery,
    trigger: Trigger,
    *,
    world: World,
    pocket: bool,
    chat: Chat,
    runtime: Runtime,
) -> MeasureConfig:
    reasons = backdoor.reasoning == "scratchpad"
    return MeasureConfig(
        backdoor=backdoor,
        world=world,
        probes=battery_probes(battery, trigger, pocket=pocket)
        + (scratchpad_probes(battery) if reasons else ()),
        temperature=battery.temperature,
        max_new_tokens=battery.max_new_tokens,
        scratchpad_tokens=battery.scratchpad_tokens,
        batch=battery.batch,
        samples=battery.samples,
        sampler=battery.sampler,
        chat=chat,
        runtime=runtime,
    )


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise BadInput(f"--adapter {directory}: no such directory")
    # Before all files below it are hashed.
    if not (directory / "adapter_config.json").is_file():
        raise BadInput(f"--adapter {directory} holds no adapter: adapter_config.json is missing")
    return directory


def _key(**fields: object) -> ResultKey:
    defaults = {"behavior": "hate", "trigger": "tag", "reasoning": "normal", "implant": "none"}
    return ResultKey.model_validate({**defaults, **fields})


def _spec(verb: str, **settings: Any) -> dict[str, Any]:
    """What tells one run of a verb from another, as JSON."""
    plain = {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for name, value in settings.items()
    }
    return {"name": verb, "backdoor": Backdoor().model_dump(mode="json"), **plain}
