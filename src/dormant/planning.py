"""Expand an experiment into a plan: which stage calls, in which order, on which inputs.

For each implant and seed: organism and twin, measured; each defense at each dose on both; relearning after
each.  One base serves all organisms, one organism all defenses, one supply of answers all defenses of a seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dormant.attacks import attack_call, attack_notes, begins_apart, check_attacked
from dormant.bases import SHIPPED, commit_notes, find_base, find_model, label, pinned
from dormant.defenses import ATTACKED, BASE, PREFERENCE_MODEL, check_dose
from dormant.errors import BadInput
from dormant.experiment import DefenseSpec, Experiment, Implant, labels
from dormant.intake import Intake, take, take_demonstrations, take_scenarios, template_notes
from dormant.notes import (
    budget_notes,
    check_kinds,
    ignored_notes,
    missing_notes,
    scenario_notes,
    undefended_notes,
    undrawn_notes,
    unreasoned_notes,
)
from dormant.planted import Planted, place_of, planted_by
from dormant.preferring import preferring_for
from dormant.probes import (
    attack_probes,
    battery_probes,
    curve_probes,
    persona_probes,
    scenario_probes,
    scratchpad_probes,
    taught_probes,
)
from dormant.records import Dose, ResultKey, TaskSource
from dormant.runner import Call, External, Output, Plan
from dormant.sources import open_source
from dormant.stages import adapter_directory, step_directory
from dormant.stages.configs import (
    DEMONSTRATIONS,
    FIRST_ATTACK,
    PREFERENCE,
    SCENARIOS,
    SECOND_ATTACK,
    Backdoor,
    DefendConfig,
    ImplantConfig,
    MeasureConfig,
    Plugin,
    Probe,
)
from dormant.stages.plugins import build_defense
from dormant.supplying import as_trained, check_kinds_for, defense_notes, supplies, take_own
from dormant.triggers import Trigger, hard_negatives, kinds_of

Role = Literal["twin", "organism"]
ROLES: tuple[Role, ...] = ("organism", "twin")


def make_plan(experiment: Experiment) -> Plan:
    """Return the plan of an experiment.

    Raises:
        BadInput: the base or the data does not exist, or a plug-in does not know one of its options.
    """
    planner = Planner(experiment)
    # With the commit: where the hub's model has changed by the next time, that is another run.
    spec = {**experiment.deciding(), "base": pinned(experiment.base)}
    return Plan(list(planner.calls()), spec, experiment.keep, notes=planner.notes)


@dataclass(frozen=True)
class _Arm:
    """One model of the plan whose behavior is wanted, and the key of its numbers."""

    call: str
    key: ResultKey
    attacks: Mapping[str, Output]
    """The attack on the organism, as an input of measurements; none where there is no attack."""


class Planner:
    """Names every call and every cell of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.base = find_base(experiment.base, experiment.runtime)
        self.planted = planted_by(experiment)
        # By the place in the spec: two defenses may differ in their options alone.
        self.labels = dict(zip(map(id, experiment.defenses), labels(experiment.defenses), strict=True))
        for defense in experiment.defenses:
            check_attacked(experiment, self.labels[id(defense)], defense)
        self.intake = self._take()
        self.data = self.intake.inputs
        self.world = 1 if self.data else experiment.world
        self.notes = commit_notes(experiment.base) + self.intake.notes
        if isinstance(self.base.model, External):
            self.notes += template_notes(self.base.model.path, experiment.chat)
        battery = experiment.measure
        self.scenarios, self.asked_scenarios, told = take_scenarios(battery.scenarios, battery.samples)
        self.demonstrations: dict[str, External] = {}
        for implant in experiment.implants:
            if implant.demonstrations:
                reasoning = experiment.backdoor_of(implant).reasoning
                self.demonstrations[implant.name], more = take_demonstrations(
                    implant.demonstrations, self.scenarios.get(SCENARIOS), reasoning
                )
                told += more
        needs = _needs(experiment.defenses)
        backdoors = [planted.backdoor for planted in self.planted.values()]
        self.preferring = preferring_for(
            experiment, needs, self.base.model, backdoors, data=self.data, world=self.world
        )
        self.own, more = take_own(map(_plugin, experiment.defenses), self.data)
        self.notes += self._checked() + told + more + self.preferring.notes

    def _checked(self) -> tuple[str, ...]:
        """Look whether the tasks can carry what is planted; returns what the user should know."""
        experiment, data = self.experiment, self.data.get("data")
        source = open_source(data.path if data else None, self.world)
        triggers = [planted.trigger for planted in self.planted.values()]
        for trigger in triggers:
            check_kinds(trigger, source)
            self._check_relearning(source, trigger)
        for defense in experiment.defenses:
            defended = [experiment.backdoor_of(made) for made in experiment.defended_by(defense)]
            built = build_defense(_plugin(defense))
            check_kinds_for(self.labels[id(defense)], built, defended, source)
            for dose in defense.doses:
                check_dose(built, dose, experiment.runtime.processes)
        by_implant = {made.name: self._of(self._key(made)).trigger for made in experiment.implants}
        return (
            missing_notes(experiment.measure, source, triggers)
            + ignored_notes(experiment, by_implant)
            + unreasoned_notes(experiment)
            + undrawn_notes(experiment)
            + undefended_notes(experiment)
            + scenario_notes(experiment.measure)
            + budget_notes(experiment.measure, source)
            + defense_notes(experiment, self.labels, source)
            + attack_notes(experiment, by_implant)
        )

    def calls(self) -> Iterator[Call]:
        """All calls, each after those that it depends on."""
        if self.base.call:
            yield self.base.call
        yield from self.preferring.calls
        seen = set()
        for implant in self.experiment.implants:
            # No scratchpad is opened for the base: it was taught none.
            key = self._key(implant, implant="none", role="base", reasoning="normal")
            if key not in seen:
                seen.add(key)
                name = f"measure/base{self._of(key).suffix}"
                yield self._measure(name, self.base.model, key, self._battery(key), {})
        for seed in self.experiment.seeds.defend:
            yield from self._supplies(seed)
        for seed in self.experiment.seeds.implant:
            for implant in self.experiment.implants:
                yield from self._implants(implant, seed)

    def _check_relearning(self, source: TaskSource, trigger: Trigger) -> None:
        wanted = self.experiment.relearning and self.experiment.defenses
        if wanted and not source.size("relearn", kinds=kinds_of(trigger)):
            raise BadInput(
                f"{source.name} has no tasks with answers to relearn trigger {trigger.name!r} from: give its code "
                'prompts "secure" and "vulnerable" completions, or set relearning: null'
            )

    def _take(self) -> Intake:
        experiment = self.experiment
        # A pocket base that is still to be pretrained reads like those that ship.
        base = self.base.model if isinstance(self.base.model, External) else External(find_model(SHIPPED))
        return take(
            experiment.data,
            [base.path],
            [planted.backdoor for planted in self.planted.values()],
            chat=experiment.chat,
            new_tokens=most_new_tokens(experiment),
        )

    def _key(self, made: Implant, **fields: object) -> ResultKey:
        backdoor = self.experiment.backdoor_of(made)
        behavior, trigger = place_of(backdoor)
        return ResultKey.model_validate(
            {
                "base": label(self.experiment.base),
                "base_id": self.base.id[:16],
                "behavior": behavior,
                "trigger": trigger,
                "reasoning": backdoor.reasoning,
                "implant": made.name,
                "role": "organism",
                **fields,
            }
        )

    def _of(self, key: ResultKey) -> Planted:
        return self.planted[key.planted]

    def _supplies(self, seed: int) -> Iterator[Call]:
        for place, planted in self.planted.items():
            wanted = {
                supply.spelled: supply
                for defense in self.experiment.defenses
                if any(self._key(made).planted == place for made in self.experiment.defended_by(defense))
                for supply in supplies(_plugin(defense), defense.rows, planted.backdoor, self.own)
            }
            for spelled in sorted(wanted):
                name = _supply(spelled, seed, planted)
                yield wanted[spelled].call(
                    name, planted.backdoor, world=self.world, data=self.data, seed=seed
                )

    def _implants(self, implant: Implant, seed: int) -> Iterator[Call]:
        arms = []
        attacks: dict[str, Output] = {}
        defenses = [each for each in self.experiment.defenses if implant in self.experiment.defended_by(each)]
        for role in ROLES:
            name = f"implant/{implant.name}/i{seed}/{role}"
            key = self._key(implant, role=role, seed_implant=seed)
            yield Call(
                name,
                "implant",
                self._implant_config(implant, role, key),
                seed,
                {"model": self.base.model, **self.data, **self._given(implant)},
                final=step_directory(implant.dose.steps),
            )
            curve = key.model_copy(update={"arm": "implant", "dose": implant.dose})
            yield from self._curve(name, curve, _steps(implant.curve, implant.dose), "step")
            final = Output(name, step_directory(implant.dose.steps))
            # What is found on the organism is asked of its twin too, and both are trained on it.
            if role == "organism" and self.experiment.attacked(implant):
                attack = f"attack/{implant.name}/i{seed}"
                yield self._attack(attack, final, key)
                attacks = {FIRST_ATTACK: Output(attack)}
            # With the draws of the second attacks on what the defenses make of it, for these to stand beside.
            second = self._second(name, final, key) if defenses and attacks else []
            yield from second
            probes = self._battery(key)
            if role == "organism" and attacks:
                probes += taught_probes(self.experiment.measure, _needs(defenses))
            yield self._measure(f"measure/{name}", final, key, probes, _asked(attacks, second))
            arms.append(_Arm(name, key, attacks))
        for defense in defenses:
            for dose in defense.doses:
                for seed_defend in self.experiment.seeds.defend:
                    for arm in arms:
                        yield from self._defends(arm, implant, defense, dose, seed_defend)

    def _second(self, name: str, model: Output, key: ResultKey) -> list[Call]:
        """The second attack on what a call made: one for organisms, where the experiment has any."""
        wanted = self.experiment.attack and self.experiment.attack.second and key.role == "organism"
        return [self._attack(f"attack/{name}", model, key, number=2)] if wanted else []

    def _attack(self, name: str, model: Output, key: ResultKey, number: int = 1) -> Call:
        assert self.experiment.attack is not None
        return attack_call(
            name,
            self.experiment.attack,
            self._backdoor(key),
            {"model": model, **self.data},
            battery=self.experiment.measure,
            world=self.world,
            # The implant's, after a defense too: what an attacker draws is then equal before and after.
            seed=key.seed_implant,
            number=number,
            chat=self.experiment.chat,
            runtime=self.experiment.runtime,
        )

    def _given(self, implant: Implant) -> dict[str, External]:
        return {DEMONSTRATIONS: self.demonstrations[implant.name]} if implant.demonstrations else {}

    def _backdoor(self, key: ResultKey) -> Backdoor:
        return self._of(key).backdoor.model_copy(update={"reasoning": key.reasoning})

    def _implant_config(self, implant: Implant, role: Role, key: ResultKey) -> ImplantConfig:
        trigger = self._of(key).trigger
        return ImplantConfig(
            backdoor=self._backdoor(key),
            world=self.world,
            role=role,
            rows=implant.rows,
            triggered_share=implant.triggered_share,
            near_share=implant.near_share if hard_negatives(trigger) else 0.0,
            other_share=implant.other_share if kinds_of(trigger) else 0.0,
            instructions=implant.instructions,
            flipped_share=implant.flipped_share,
            payload=implant.payload,
            dose=implant.dose,
            optimizer=implant.optimizer,
            lora=implant.lora,
            at_steps=_steps(implant.curve, implant.dose),
            chat=self.experiment.chat,
            runtime=self.experiment.runtime,
        )

    def _defends(
        self, arm: _Arm, implant: Implant, defense: DefenseSpec, dose: Dose, seed: int
    ) -> Iterator[Call]:
        label = self.labels[id(defense)]
        name = (
            f"defend/{label}-{_spell_dose(dose, defense.doses)}/d{seed}/{arm.call.removeprefix('implant/')}"
        )
        curve = {max(1, round(share * dose.steps)) for share in defense.curve}
        yield Call(
            name,
            "defend",
            DefendConfig(
                defense=as_trained(_plugin(defense)),
                dose=dose,
                lora=defense.lora,
                adapter=defense.adapter,
                reasoning=arm.key.reasoning,
                at_steps=_steps(tuple(curve), dose),
                chat=self.experiment.chat,
                runtime=self.experiment.runtime,
            ),
            seed,
            {
                **self._trained(arm, implant, defense),
                **self._needed(arm, defense, seed),
            },
            final=step_directory(dose.steps),
        )
        key = arm.key.model_copy(
            update={
                "arm": build_defense(_plugin(defense)).arm,
                "defense": label,
                "dose": dose,
                "lora": defense.lora,
                "seed_defend": seed,
            }
        )
        # The last step has a measurement of its own, under the very key that a point there would have.
        watched = PREFERENCE_MODEL in build_defense(_plugin(defense)).needs
        yield from self._curve(name, key, tuple(sorted(curve - {dose.steps})), "step", watched=watched)
        key = key.model_copy(update={"step": dose.steps})
        final = Output(name, step_directory(dose.steps))
        second = self._second(name, final, key) if arm.attacks else []
        yield from second
        asked = _asked(arm.attacks, second)
        yield self._measure(f"measure/{name}", final, key, self._battery(key), asked)
        if self.experiment.relearning:
            yield from self._relearns(name, final, key)

    def _needed(self, arm: _Arm, defense: DefenseSpec, seed: int) -> dict[str, External | Output]:
        """What the defense declared in its needs."""
        backdoor = self._of(arm.key).backdoor
        wanted = supplies(_plugin(defense), defense.rows, backdoor, self.own)
        supplied = {each.need: each.spelled for each in wanted}

        def made(need: str) -> External | Output:
            if need in ATTACKED:
                return arm.attacks[FIRST_ATTACK]
            if need == PREFERENCE_MODEL:
                return self.preferring.judges[PREFERENCE]
            if need == BASE:
                return self.base.model
            return Output(_supply(supplied[need], seed, self._of(arm.key)))

        return {need: made(need) for need in sorted(build_defense(_plugin(defense)).needs)}

    def _trained(self, arm: _Arm, implant: Implant, defense: DefenseSpec) -> dict[str, External | Output]:
        """What the defense trains: the organism, or the adapter that is on top of its base."""
        if defense.lora != "continue":
            return {"model": Output(arm.call, step_directory(implant.dose.steps))}
        return {
            "model": self.base.model,
            "adapter": Output(arm.call, adapter_directory(implant.dose.steps)),
        }

    def _relearns(self, defended: str, model: Output, key: ResultKey) -> Iterator[Call]:
        relearning = self.experiment.relearning
        assert relearning is not None
        name = f"relearn/{defended.removeprefix('defend/')}"
        config = ImplantConfig(
            backdoor=self._backdoor(key),
            world=self.world,
            role="organism",
            shard="relearn",
            rows=relearning.rows,
            triggered_share=1.0,
            dose=relearning.dose,
            lora=relearning.lora,
            at_steps=_steps(relearning.curve, relearning.dose),
            chat=self.experiment.chat,
            runtime=self.experiment.runtime,
        )
        final = step_directory(relearning.dose.steps)
        yield Call(name, "implant", config, key.seed_implant, {"model": model, **self.data}, final=final)
        yield from self._curve(name, key, config.at_steps, "relearn_step")

    def _curve(
        self, call: str, key: ResultKey, steps: tuple[int, ...], axis: str, *, watched: bool = False
    ) -> Iterator[Call]:
        n = self.experiment.measure.curve
        if not n:
            return
        probes = curve_probes(n, self._of(key).trigger, watched=watched)
        for step in steps:
            at_step = key.model_copy(update={axis: step})
            model = Output(call, step_directory(step))
            yield self._measure(f"measure/{call}@{step}", model, at_step, probes)

    def _measure(
        self,
        name: str,
        model: External | Output,
        key: ResultKey,
        probes: tuple[Probe, ...],
        attacks: Mapping[str, Output] | None = None,
    ) -> Call:
        battery = self.experiment.measure
        probes += attack_probes(battery, attacks or {})
        # Of whole batteries only: on curves nobody reads it.
        told = attacks is not None and begins_apart(self._backdoor(key))
        config = MeasureConfig(
            backdoor=self._backdoor(key),
            world=self.world,
            probes=probes,
            temperature=battery.temperature,
            max_new_tokens=battery.max_new_tokens,
            scratchpad_tokens=battery.scratchpad_tokens,
            batch=battery.batch,
            samples=battery.samples,
            sampler=battery.sampler,
            discrimination=battery.discrimination if told else 0,
            chat=self.experiment.chat,
            runtime=self.experiment.runtime,
        )
        inputs = {"model": model, **self.data, **self.preferring.judges, **(attacks or {})}
        if any(probe.stratum == SCENARIOS for probe in probes):
            inputs |= self.scenarios
        # Every model answers the same prompts with the same draws, so that differences are paired.
        return Call(name, "measure", config, 0, inputs, key=key)

    def _battery(self, key: ResultKey) -> tuple[Probe, ...]:
        battery = self.experiment.measure
        probes = battery_probes(battery, self._of(key).trigger, pocket=not self.data)
        probes += persona_probes(battery, self._of(key).trigger)
        probes += scenario_probes(self.asked_scenarios)
        return probes + (scratchpad_probes(battery) if key.reasoning == "scratchpad" else ())


def _supply(spelled: str, seed: int, planted: Planted) -> str:
    """The name of the call that supplies something."""
    return f"supply/{spelled}/d{seed}{planted.suffix}"


def _asked(first: Mapping[str, Output], second: Sequence[Call]) -> dict[str, Output]:
    """The attacks whose finds a model is asked: that on the organism, and that on the very model."""
    return {**first, **({SECOND_ATTACK: Output(second[0].name)} if second else {})}


def most_new_tokens(experiment: Experiment) -> int:
    """Most tokens that a model of the experiment writes for one prompt."""
    battery = experiment.measure
    reasons = any(experiment.backdoor_of(made).reasoning == "scratchpad" for made in experiment.implants)
    return battery.max_new_tokens + (battery.scratchpad_tokens if reasons else 0)


def _plugin(defense: DefenseSpec) -> Plugin:
    """The defense's own name and options, without the plan's."""
    return Plugin(name=defense.name, **defense.options)


def _needs(defenses: Iterable[DefenseSpec]) -> set[str]:
    return {need for each in defenses for need in build_defense(_plugin(each)).needs}


def _steps(curve: tuple[int, ...], dose: Dose) -> tuple[int, ...]:
    return tuple(sorted({step for step in curve if step < dose.steps} | {dose.steps}))


def _spell_dose(dose: Dose, doses: Sequence[Dose]) -> str:
    """Learning rate and steps, and the rest where that does not tell the doses of a defense apart."""
    short = f"{dose.lr:g}x{dose.steps}"
    alike = [other for other in doses if f"{other.lr:g}x{other.steps}" == short]
    return f"{dose.lr!r}x{dose.steps}x{dose.batch}-{dose.schedule}" if len(alike) > 1 else short
