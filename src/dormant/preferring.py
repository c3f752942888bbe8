"""What makes preference models part of a plan: pairs of three shards, a model on each of two, and who reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dormant.behaviors import own_kinds
from dormant.defenses import PREFERENCE_MODEL
from dormant.errors import BadInput
from dormant.experiment import Experiment, Preference
from dormant.intake import take_pairs
from dormant.runner import Call, External, Output
from dormant.stages.configs import (
    HELDOUT_PAIRS,
    MODEL,
    PAIRS,
    PREFERENCE,
    SECOND_PREFERENCE,
    Backdoor,
    PairsConfig,
    Plugin,
    PreferConfig,
    Runtime,
    World,
)
from dormant.stages.plugins import build_behavior, build_trigger
from dormant.triggers import counter_form

HALVES = (
    ("prefer/a", "prefer_a", PREFERENCE),
    ("prefer/b", "prefer_b", SECOND_PREFERENCE),
)
"""The call of each model, the shard that it learns from, and the input that it is."""


@dataclass(frozen=True)
class Preferring:
    """The calls that make the two preference models, if a plan has them."""

    calls: tuple[Call, ...] = ()
    judges: Mapping[str, External | Output] = field(default_factory=dict)
    """Both, as inputs of a measurement; a defense is given the first at most."""
    notes: tuple[str, ...] = ()


def preferring(
    settings: Preference,
    base: External | Output,
    backdoors: Sequence[Backdoor],
    *,
    data: Mapping[str, External],
    world: World,
    max_new_tokens: int,
    chat: Literal["auto", "plain"],
    runtime: Runtime,
) -> Preferring:
    """Plan the two preference models.

    Args:
        settings: how they are made.
        base: what both begin as, and whose answers are compared.
        backdoors: what is planted: no pair shows it, and prompts stand in each counter form too.
        data: the input of own data, if there is any.
        world: the version of the pocket world that tasks come from, where no file has the pairs.
        max_new_tokens: of an answer of the base.
        chat: how conversations are written.
        runtime: of the plan; each of these models is trained in one process.

    Raises:
        BadInput: the pairs can not be read, or own data comes without any.
    """
    given, notes = take_pairs(settings.pairs)
    if data and not given:
        raise BadInput(
            "preference models on own data need pairs: set preference.pairs to a file of rows "
            'with "chosen" and "rejected"'
        )
    if runtime.processes > 1:
        notes += ("preference models are trained in one process each, whatever runtime.processes says",)
    alone = runtime.model_copy(update={"processes": 1, "launch": None})
    config = PairsConfig(
        shard="heldout",
        world=world,
        rows=settings.heldout,
        sampled_share=settings.sampled_share,
        counter_forms=_forms(backdoors),
        never=_never(backdoors),
        max_new_tokens=max_new_tokens,
        chat=chat,
        runtime=alone,
    )
    calls = _calls(settings, base, {**given, **data} if given else {"model": base}, config)
    return Preferring(tuple(calls), {role: Output(name, MODEL) for name, _, role in HALVES}, notes)


def _calls(
    settings: Preference,
    base: External | Output,
    made_of: Mapping[str, External | Output],
    heldout: PairsConfig,
) -> Iterator[Call]:
    """Held-out pairs, then for each model its pairs and itself."""
    yield Call("pairs/heldout", "pairs", heldout, settings.seed, made_of)
    for i, (name, shard, _) in enumerate(HALVES):
        pairs = heldout.model_copy(update={"shard": shard, "rows": settings.rows})
        yield Call(f"pairs/{shard}", "pairs", pairs, settings.seed, made_of)
        config = PreferConfig(dose=settings.dose, chat=heldout.chat, runtime=heldout.runtime)
        learned = {PAIRS: Output(f"pairs/{shard}"), HELDOUT_PAIRS: Output("pairs/heldout")}
        yield Call(name, "prefer", config, settings.seed + i, {"model": base, **learned}, final=MODEL)


def preferring_for(
    experiment: Experiment,
    needs: Collection[str],
    base: External | Output,
    backdoors: Sequence[Backdoor],
    *,
    data: Mapping[str, External],
    world: World,
) -> Preferring:
    """Plan preference models where an experiment asks for them or a defense of it needs one, as :func:`preferring`."""
    settings = experiment.preference or (Preference() if PREFERENCE_MODEL in needs else None)
    if settings is None:
        return Preferring()
    return preferring(
        settings,
        base,
        backdoors,
        data=data,
        world=world,
        max_new_tokens=experiment.measure.max_new_tokens,
        chat=experiment.chat,
        runtime=experiment.runtime,
    )


def _forms(backdoors: Sequence[Backdoor]) -> tuple[str, ...]:
    forms = [counter_form(build_trigger(each.trigger)) for each in backdoors]
    return tuple(dict.fromkeys(form for form in forms if form))


def _never(backdoors: Sequence[Backdoor]) -> tuple[Plugin, ...]:
    """Planted behaviors that nobody would show by chance.

    Those of some kinds of tasks only, such as insecure code, are what the checkers of these tasks look for, and have to
    be among what is rejected.
    """
    found = {each.behavior.model_dump_json(): each.behavior for each in backdoors}
    return tuple(each for each in found.values() if not own_kinds(build_behavior(each)))
