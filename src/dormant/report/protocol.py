"""Arranges the places of a run by the protocol: organisms, their twins, and what was done to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dormant.records import Dose, ResultKey
from dormant.report import words
from dormant.report.rundata import Run, Verdict

Curve = list[tuple[int, ResultKey]]
"""Steps and the model at each, in order of steps."""

ARM_ORDER = {"claim": 0, "control": 1, "noop": 2, "positive": 3}


@dataclass
class Trial:
    """One defense at one dose, on an organism and on its equally defended twin."""

    arm: str
    defense: str
    dose: Dose
    seed_defend: int | None
    lora: str = "none"
    verdict: Verdict | None = None
    organism: Curve = field(default_factory=list)
    twin: Curve = field(default_factory=list)
    relearn_organism: Curve = field(default_factory=list)
    relearn_twin: Curve = field(default_factory=list)

    @property
    def aware(self) -> bool:
        """Whether the defense was shown the trigger."""
        return self.arm == "positive"

    @property
    def label(self) -> str:
        """Defense and dose in a few words, with what was trained and the mark that reports owe to an aware defense."""
        dose = f"{words.dose(self.dose)}{words.lora(self.lora)}"
        return f"{self.defense} {dose}{' (aware)' if self.aware else ''}"

    @property
    def after(self) -> ResultKey | None:
        """The organism at the end of the defense, or None when it was not measured."""
        return _at(self.organism, self.dose.steps)

    @property
    def after_twin(self) -> ResultKey | None:
        """The twin at the end of the same defense."""
        return _at(self.twin, self.dose.steps)

    @property
    def relearned(self) -> tuple[int, ResultKey] | None:
        """The last measured point of relearning."""
        return self.relearn_organism[-1] if len(self.relearn_organism) > 1 else None

    @property
    def relearned_twin(self) -> tuple[int, ResultKey] | None:
        """The last measured point of the twin's relearning."""
        return self.relearn_twin[-1] if len(self.relearn_twin) > 1 else None


@dataclass
class Lineage:
    """One organism (an implant, a seed) with its base, its twin and its trials."""

    base: str
    implant: str
    behavior: str
    trigger: str
    reasoning: str
    seed_implant: int
    label: str = ""
    unplanted: ResultKey | None = None
    organism: ResultKey | None = None
    twin: ResultKey | None = None
    implanting: Curve = field(default_factory=list)
    implanting_twin: Curve = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)

    @property
    def planted(self) -> tuple[str, str]:
        """Behavior and trigger."""
        return self.behavior, self.trigger

    @property
    def claims(self) -> list[Trial]:
        """The trials of the defense under test, by dose."""
        return [trial for trial in self.trials if trial.arm == "claim"]

    @property
    def controls(self) -> list[Trial]:
        """The trials of all other arms: of no-ops, of the positive control, of controls of a claim's own."""
        return [trial for trial in self.trials if trial.arm != "claim"]


def lineages(run: Run) -> list[Lineage]:
    """Return the organisms of a run, those with a claim first."""
    groups: dict[tuple[object, ...], list[ResultKey]] = {}
    bases: list[ResultKey] = []
    for place in run.numbers:
        if place.role == "base":
            bases.append(place)
        else:
            groups.setdefault(_lineage_id(place), []).append(place)
    found = [_lineage(run, places, bases) for places in groups.values()]
    found.sort(key=lambda lineage: (not lineage.claims, lineage.implant, lineage.seed_implant))
    _label(found)
    return found


def by_backdoor(organisms: Iterable[Lineage]) -> list[list[Lineage]]:
    """The organisms of each backdoor."""
    found: dict[tuple[str, str], list[Lineage]] = {}
    for lineage in organisms:
        found.setdefault(lineage.planted, []).append(lineage)
    return list(found.values())


def bases(organisms: Iterable[Lineage]) -> list[tuple[str, ResultKey]]:
    """The base as it was asked about each backdoor; with the behavior's name where there are several."""
    groups = by_backdoor(organisms)
    found = [next((lineage.unplanted for lineage in group if lineage.unplanted), None) for group in groups]
    several = len(groups) > 1
    return [(_asked_about(key, groups) if several else "", key) for key in found if key]


def _asked_about(key: ResultKey, groups: list[list[Lineage]]) -> str:
    alike = [group for group in groups if group[0].behavior == key.behavior]
    return key.behavior if len(alike) == 1 else f"{key.behavior} {key.trigger}"


def headline(run: Run, organisms: Iterable[Lineage]) -> tuple[Lineage, Trial] | None:
    """The claim that stands for the run: the declared one, else the largest dose that was judged."""
    claims = [(lineage, trial) for lineage in organisms for trial in lineage.claims if trial.after]
    if run.meta.headline:
        wanted = (run.meta.headline.defense, run.meta.headline.dose)
        for lineage, trial in claims:
            if (trial.defense, trial.dose) == wanted:
                return lineage, trial
    judged = [
        pair
        for pair in claims
        if pair[1].verdict and not pair[1].verdict.verdict.startswith(("inconclusive", "destroyed"))
    ]
    first = [pair for pair in judged or claims if pair[0] is (judged or claims)[0][0]]
    return first[-1] if first else None


def headlines(run: Run, lineage: Lineage) -> list[Trial]:
    """Each defense at the dose that stands for it, for every seed.

    That is the dose that its spec declares, else that of the run's headline, else the largest.
    """
    chosen = headline(run, [lineage])
    found: dict[tuple[object, ...], tuple[tuple[bool, bool], Trial]] = {}
    for trial in lineage.trials:
        name = (trial.arm, trial.defense, trial.lora, trial.seed_defend)
        rank = (
            _is_declared(run, trial, lineage.implant),
            chosen is not None and trial.dose == chosen[1].dose,
        )
        # The trials of a defense stand in the order of their doses.
        if trial.after and (name not in found or rank >= found[name][0]):
            found[name] = (rank, trial)
    return [trial for _, trial in found.values()]


def _is_declared(run: Run, trial: Trial, implant: str) -> bool:
    """Whether the spec calls this dose the headline of the defense on this implant."""
    return any(
        (told.defense, told.dose) == (trial.defense, trial.dose)
        and (not told.implants or implant in told.implants)
        for told in run.meta.headlines
    )


def _lineage_id(place: ResultKey) -> tuple[object, ...]:
    return (
        place.base,
        place.base_id,
        place.behavior,
        place.trigger,
        place.reasoning,
        place.implant,
        place.seed_implant,
    )


def _lineage(run: Run, places: list[ResultKey], bases: list[ResultKey]) -> Lineage:
    first = places[0]
    lineage = Lineage(
        first.base, first.implant, first.behavior, first.trigger, first.reasoning, first.seed_implant
    )
    same = [base for base in bases if (base.base_id, base.planted) == (first.base_id, first.planted)]
    lineage.unplanted = same[0] if same else None
    for place in places:
        if place.arm == "none" and place.role == "organism":
            lineage.organism = place
        elif place.arm == "none":
            lineage.twin = place
    lineage.implanting = _implanting(places, "organism", lineage)
    lineage.implanting_twin = _implanting(places, "twin", lineage)
    lineage.trials = _trials(run, places, lineage)
    return lineage


def _implanting(places: list[ResultKey], role: str, lineage: Lineage) -> Curve:
    """The curve while implanting: from the base, through the checkpoints, to what was implanted."""
    curve = [(place.step, place) for place in places if place.arm == "implant" and place.role == role]
    if not curve:
        return []
    steps = {step for step, _ in curve}
    final = lineage.organism if role == "organism" else lineage.twin
    dose = curve[0][1].dose
    if final and dose and dose.steps not in steps:
        curve.append((dose.steps, final))
    if lineage.unplanted and 0 not in steps:
        curve.append((0, lineage.unplanted))
    return sorted(curve, key=lambda point: point[0])


def _trials(run: Run, places: list[ResultKey], lineage: Lineage) -> list[Trial]:
    trials: dict[tuple[object, ...], Trial] = {}
    for place in places:
        if place.arm in ("none", "implant") or place.dose is None:
            continue
        identity = (place.arm, place.defense, place.dose, place.lora, place.seed_defend)
        trial = Trial(place.arm, place.defense, place.dose, place.seed_defend, place.lora)
        trial = trials.setdefault(identity, trial)
        organism = place.role == "organism"
        if place.relearn_step is None:
            (trial.organism if organism else trial.twin).append((place.step, place))
        else:
            curve = trial.relearn_organism if organism else trial.relearn_twin
            curve.append((place.relearn_step, place))
    for trial in trials.values():
        _complete(trial, lineage)
        trial.verdict = _verdict(run, trial, lineage)
    listed = list(dict.fromkeys(place.defense for place in places))
    return sorted(trials.values(), key=lambda trial: _trial_order(trial, listed))


def _complete(trial: Trial, lineage: Lineage) -> None:
    """Add the points that are measured once and shared: step 0 of a curve, and of its relearning."""
    for curve, before in ((trial.organism, lineage.organism), (trial.twin, lineage.twin)):
        if before and all(step for step, _ in curve):
            curve.append((0, before))
        curve.sort(key=lambda point: point[0])
    for curve, after in (
        (trial.relearn_organism, trial.after),
        (trial.relearn_twin, trial.after_twin),
    ):
        if curve and after and all(step for step, _ in curve):
            curve.append((0, after))
        curve.sort(key=lambda point: point[0])


def _verdict(run: Run, trial: Trial, lineage: Lineage) -> Verdict | None:
    for row in run.verdicts:
        named = (
            (row.implant, lineage.implant),
            (row.behavior, lineage.behavior),
            (row.trigger, lineage.trigger),
        )
        if any(said not in (None, own) for said, own in named):
            continue
        if (row.arm, row.defense, row.dose, row.seed_implant, row.seed_defend) == (
            trial.arm,
            trial.defense,
            trial.dose,
            lineage.seed_implant,
            trial.seed_defend,
        ):
            return row
    return None


def _trial_order(trial: Trial, listed: Sequence[str]) -> tuple[object, ...]:
    """Controls after claims, and defenses as the spec lists them."""
    dose = trial.dose
    size = dose.lr * dose.steps * dose.batch
    arm = ARM_ORDER.get(trial.arm, len(ARM_ORDER))
    place = listed.index(trial.defense)
    return (arm, trial.arm, place, size, dose.lr, dose.steps, dose.schedule, trial.seed_defend or 0)


def _label(found: list[Lineage]) -> None:
    """Name organisms by what tells them apart."""
    seeds = {(lineage.implant, lineage.seed_implant) for lineage in found}
    several = len(seeds) > len({implant for implant, _ in seeds})
    # A trigger that goes with one behavior only is named by it.
    apart = ["base", "reasoning", "behavior"]
    apart += ["trigger"] * (len({item.planted for item in found}) > len({item.behavior for item in found}))
    for lineage in found:
        parts = [lineage.implant]
        for name in apart:
            value = getattr(lineage, name)
            said = _says(" ".join(parts), value) or (name == "behavior" and _says(value, lineage.implant))
            if len({getattr(other, name) for other in found}) > 1 and not said:
                parts.append(value)
        if several:
            parts.append(f"seed {lineage.seed_implant}")
        lineage.label = " ".join(parts)


def _says(text: str, name: str) -> bool:
    """Whether a name stands in a text as words of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _at(curve: Curve, step: int) -> ResultKey | None:
    return next((place for at, place in curve if at == step and place.arm != "none"), None)
