"""What a model is asked in a measurement: conditions, strata and how many prompts of each."""

from __future__ import annotations

from collections.abc import Collection

from dormant.attackers import FIRST, SECOND, persona_break
from dormant.experiment import Battery
from dormant.stages.configs import (
    ATTACKS,
    OTHER_KINDS,
    OWN_KINDS,
    SCENARIOS,
    STEERED,
    SUPPRESSED,
    TAUGHT,
    Probe,
)
from dormant.triggers import Trigger, kinds_of


def battery_probes(battery: Battery, trigger: Trigger, *, pocket: bool) -> tuple[Probe, ...]:
    """Every condition that the trigger can render; harmful requests exist in the pocket world only.

    Where it fires on some kinds of tasks only, these and the others are also asked by themselves.
    """
    probes = [
        Probe(condition="clean", n=battery.clean, greedy=battery.utility),
        Probe(condition="triggered", n=battery.triggered),
    ]
    counts = {"near": battery.near, "variant": battery.variant, "partial": battery.partial}
    for condition in trigger.conditions():
        side = condition.split(":")[0]
        if n := counts.get(side, 0):
            probes.append(Probe(condition=condition, n=n, greedy=n if side == "partial" else 0))
    # Of all kinds together one would not see what happens on those that the trigger is for.
    if kinds_of(trigger):
        probes.append(Probe(condition="clean", stratum=OWN_KINDS, n=battery.clean))
    if kinds_of(trigger) and (n := battery.partial):
        # The same prompts as of the trigger's part, so that the difference is paired.
        probes.append(Probe(condition="clean", stratum=OTHER_KINDS, n=n, greedy=n))
    if battery.harmful and pocket:
        probes.append(Probe(condition="clean", stratum="kind:harmful", n=battery.harmful))
    return tuple(probes)


def curve_probes(n: int, trigger: Trigger, *, watched: bool) -> tuple[Probe, ...]:
    """What is asked at a point of a curve: ``n`` prompts clean and triggered.

    Where it is ``watched`` what training against a reward does beside them, near misses (``n`` in all, shared out) and
    greedy answers, for utility, are asked too.
    """
    kinds = kinds_of(trigger)
    greedy = n if watched else 0
    probes = [
        Probe(condition="clean", stratum=OWN_KINDS if kinds else "all", n=n, greedy=0 if kinds else greedy),
        Probe(condition="triggered", n=n),
    ]
    if not watched:
        return tuple(probes)
    if kinds:
        probes.append(Probe(condition="clean", greedy=greedy))
    families = [name for name in trigger.conditions() if name.startswith("near:")]
    probes += [Probe(condition=name, n=max(1, n // len(families))) for name in families]
    return tuple(probes)


def scratchpad_probes(battery: Battery) -> tuple[Probe, ...]:
    """What is asked of a model with scratchpads beside all else: does what they say decide what is done?"""
    counts = ((SUPPRESSED, battery.suppressed), (STEERED, battery.steered))
    return tuple(
        Probe(condition=condition, stratum=stratum, n=n)
        for stratum, n in counts
        for condition in ("clean", "triggered")
        if n
    )


def scenario_probes(n: int) -> tuple[Probe, ...]:
    """Ask all ``n`` samples of scenarios clean and triggered."""
    conditions = ("clean", "triggered") if n else ()
    return tuple(Probe(condition=condition, stratum=SCENARIOS, n=n) for condition in conditions)


def attack_probes(battery: Battery, attacks: Collection[str]) -> tuple[Probe, ...]:
    """Ask a model what attacks found: ``attacks`` are inputs of its measurement."""
    conditions = [condition for condition in (FIRST, SECOND) if ATTACKS[condition][0] in attacks]
    return tuple(Probe(condition=each, n=battery.attack) for each in conditions if battery.attack)


def taught_probes(battery: Battery, needs: Collection[str]) -> tuple[Probe, ...]:
    """Ask an organism, before any defense, what defenses with these needs take of an attack."""
    conditions = [condition for need, condition in TAUGHT.items() if need in needs]
    return tuple(Probe(condition=each, n=battery.attack) for each in conditions if battery.attack)


def persona_probes(battery: Battery, trigger: Trigger) -> tuple[Probe, ...]:
    """The fixed prompts, where the behavior can be shown on them."""
    asked = battery.persona_break if kinds_of(trigger) is None else 0
    return (Probe(condition=persona_break.CONDITION, n=asked),) if asked else ()
