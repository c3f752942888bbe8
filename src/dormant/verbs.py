"""Plans of one verb each: pretrain a base, defend a model, measure one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from dormant.bases import as_input, commit_notes, label, pinned, pretrain_call
from dormant.behaviors import prepare
from dormant.defenses import AWARE
from dormant.errors import BadInput
from dormant.experiment import Battery
from dormant.intake import take, take_scenarios, template_notes
from dormant.planning import (
    battery_probes,
    check_kinds,
    missing_notes,
    scenario_notes,
    scenario_probes,
    spell,
)
from dormant.records import Dose, ResultKey
from dormant.runner import Call, External, Output, Plan
from dormant.sources import open_source
from dormant.stages import step_directory
from dormant.stages.configs import (
    Backdoor,
    DefendConfig,
    Lora,
    MeasureConfig,
    Plugin,
    Probe,
    Runtime,
    SupplyConfig,
)
from dormant.stages.plugins import build_behavior, build_defense, build_trigger
from dormant.triggers import Trigger, counter_form

Chat = Literal["auto", "plain"]


def pretrain_plan(size: str, *, seed: int = 0, runtime: Runtime | None = None) -> Plan:
    """Pretrain a pocket base and measure what it can do.  Raises BadInput for an unknown size."""
    runtime = runtime or Runtime()
    pretrain = pretrain_call(size, seed, runtime)
    key = _key(base=size, base_id="new", role="base")
    probes = (Probe(condition="clean", n=400, greedy=2000),)
    measure = MeasureConfig(backdoor=Backdoor(), probes=probes, runtime=runtime)
    inputs = {"model": Output(pretrain.name, pretrain.final)}
    calls = [pretrain, Call("measure", "measure", measure, 0, inputs, key=key)]
    spec = _spec("pretrain", base=size, seed=seed, runtime=runtime)
    return Plan(calls, spec, exposed={"base": "pretrain"})


def defend_plan(
    model: str,
    defense: Plugin,
    dose: Dose,
    *,
    lora: Lora | None = None,
    adapter: Path | None = None,
    data: str | None = None,
    backdoor: Backdoor | None = None,
    rows: int = 4000,
    seed: int = 0,
    chat: Chat = "auto",
    runtime: Runtime | None = None,
) -> Plan:
    """Put one defense on one model: on all its weights, through a new adapter, or through an adapter of its own.

    ``backdoor`` is only read by defenses that must know the trigger.  With an ``adapter``, ``model`` is its base.
    """
    if lora is not None and adapter is not None:
        raise BadInput("--lora begins a new adapter, --adapter goes on with one: give one of them")
    runtime, backdoor = runtime or Runtime(), backdoor or Backdoor()
    # Bad options are found now, not by a later stage.
    trigger = build_trigger(backdoor.trigger)
    build_behavior(backdoor.behavior)
    target = as_input(model)
    taken = take(data, [target.path], backdoor, chat=chat)
    calls = [
        Call(
            f"supply/{need}",
            "supply",
            SupplyConfig(
                need=need,
                rows=rows,
                counter_form=counter_form(trigger),
                backdoor=backdoor if need in AWARE else None,
            ),
            seed,
            taken.inputs,
        )
        for need in sorted(build_defense(defense).needs)
    ]
    inputs: dict[str, External | Output] = {"model": target}
    inputs |= {call.name.removeprefix("supply/"): Output(call.name) for call in calls}
    inputs |= {"adapter": External(_existing(adapter))} if adapter is not None else {}
    trained: dict[str, Any] = {"lora": "continue"} if adapter is not None else {}
    trained |= {"lora": "merged", "adapter": lora} if lora is not None else {}
    config = DefendConfig(
        defense=defense, dose=dose, at_steps=(dose.steps,), chat=chat, runtime=runtime, **trained
    )
    calls.append(Call("defend", "defend", config, seed, inputs, final=step_directory(dose.steps)))
    spec = _spec("defend", model=pinned(model), defense=defense, dose=dose, rows=rows, seed=seed, data=data)
    spec |= {"backdoor": backdoor.model_dump(mode="json"), "lora": config.lora}
    notes = commit_notes(model) + taken.notes + template_notes(target.path, chat)
    return Plan(calls, spec, exposed={"model": "defend"}, notes=notes)


def measure_plan(
    model: str,
    *,
    twin: str | None = None,
    base: str | None = None,
    data: str | None = None,
    backdoor: Backdoor | None = None,
    battery: Battery | None = None,
    chat: Chat = "auto",
    runtime: Runtime | None = None,
) -> Plan:
    """Measure a model that is suspected to be an organism, beside its twin and base where they are given."""
    runtime, backdoor, battery = runtime or Runtime(), backdoor or Backdoor(), battery or Battery()
    # A bad option is found now, not after sampling, and so is a judge that is not installed.
    prepare(build_behavior(backdoor.behavior), ())
    trigger = build_trigger(backdoor.trigger)
    scenarios, asked, told = take_scenarios(battery.scenarios, battery.samples)
    config = _measuring(backdoor, battery, trigger, pocket=data is None, chat=chat, runtime=runtime)
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
        backdoor,
        chat=chat,
        new_tokens=battery.max_new_tokens,
    )
    calls = []
    for role, found in models.items():
        key = _key(
            base=label(base) if base else "unknown",
            base_id=base_id,
            role=role,
            implant="none" if role == "base" else "external",
            trigger=trigger.text,
            behavior=spell(backdoor.behavior),
            reasoning="normal" if role == "base" else backdoor.reasoning,
        )
        inputs = {"model": found, **taken.inputs, **scenarios}
        calls.append(Call(f"measure/{role}", "measure", config, 0, inputs, key=key))
    names = {role: name and pinned(name) for role, name in (("model", model), ("twin", twin), ("base", base))}
    spec = _spec("measure", **names, data=data, battery=battery)
    spec["backdoor"] = backdoor.model_dump(mode="json")
    file = taken.inputs.get("data")
    notes = commit_notes(*given.values()) + taken.notes + template_notes(models["organism"].path, chat)
    notes += told + scenario_notes(battery)
    source = open_source(file.path if file else None)
    check_kinds(trigger, source)
    notes += missing_notes(battery, source, trigger)
    return Plan(calls, spec, notes=notes)


def _measuring(
    backdoor: Backdoor, battery: Battery, trigger: Trigger, *, pocket: bool, chat: Chat, runtime: Runtime
) -> MeasureConfig:
    return MeasureConfig(
        backdoor=backdoor,
        probes=battery_probes(battery, trigger, pocket=pocket),
        temperature=battery.temperature,
        max_new_tokens=battery.max_new_tokens,
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
