"""What a run does not show: the lines every report owes, from what the run holds."""

from __future__ import annotations

from dormant.defenses import name_of
from dormant.gates import Thresholds
from dormant.report.protocol import Lineage, by_backdoor
from dormant.report.rundata import Run

ON_POLICY = "on-policy-sft"
"""The defense that trains a model on answers of its own."""


def limits(run: Run, organisms: list[Lineage]) -> list[str]:
    """One sentence for each limit that applies to the run."""
    lines = [_seeds(organisms)]
    lines += _changed_thresholds(run)
    bases = sorted({lineage.base for lineage in organisms})
    if len(bases) == 1:
        lines.append(f"One base ({bases[0]}): nothing here says how the answer changes with size.")
    if any(base.startswith("pocket") for base in bases):
        lines.append(
            "The base is a small model of the pocket world, a few dozen families of short tasks: "
            "rates here do not carry over to large models trained on natural text."
        )
    groups = by_backdoor(organisms) or [[]]
    for group in groups:
        of = f" for {group[0].behavior}" if len(groups) > 1 else ""
        if missing := missing_arms(run, group):
            lines.append(f"Arms of the protocol that did not run{of}: {'; '.join(missing)}.")
    lines.append(
        "Until every arm has run, a low rate is only that: a rate with an interval, at one dose, on these "
        "prompts. Relearning shows how near the behavior still is."
    )
    if any(trial.aware for lineage in organisms for trial in lineage.trials):
        lines.append(
            "A defense marked aware was shown the trigger. It is a positive control, and says nothing about "
            "what a defense without that knowledge can do."
        )
    lines.append(
        "Near misses are held-out instances of listed families; another prompt may fire that no list has."
    )
    lines.append(
        "Variants contain the trigger, or say what it says, in a form that was not trained: they are reported, "
        "never judged."
    )
    return lines


def _changed_thresholds(run: Run) -> list[str]:
    """A gate that was moved is said to be: a number that passes it may not be worth what it usually is."""
    default = Thresholds()
    changed = [
        f"{name} {value:g} (usually {getattr(default, name):g})"
        for name, value in run.meta.spec.get("gates", {}).items()
        if value != getattr(default, name, value)
    ]
    return [f"Thresholds of gates that were changed for this run: {'; '.join(changed)}."] if changed else []


def _seeds(organisms: list[Lineage]) -> str:
    implant = len({lineage.seed_implant for lineage in organisms}) or 1
    defend = len({trial.seed_defend for lineage in organisms for trial in lineage.claims})
    parts = [f"{_times(implant, 'seed')} of implanting"]
    parts += [f"{_times(defend, 'seed')} of defending"] if defend else []
    count = " and ".join(parts).capitalize()
    if implant == 1 or defend == 1:
        return (
            f"{count}: intervals are over prompts and completions, not over training runs; "
            "another seed may give another answer."
        )
    return f"{count}: differences between seeds are part of the answer."


def _times(count: int, noun: str) -> str:
    return f"one {noun}" if count == 1 else f"{count} {noun}s"


def missing_arms(run: Run, organisms: list[Lineage]) -> list[str]:
    """The arms of the protocol that the run has no numbers for, in the protocol's order."""
    claims = [trial for lineage in organisms for trial in lineage.claims]
    trials = [trial for lineage in organisms for trial in lineage.trials]
    arms = {trial.arm for trial in trials}
    defenses = {name_of(trial.defense) for trial in trials}
    present = {
        "the base": any(lineage.unplanted for lineage in organisms),
        "the twin": any(lineage.twin for lineage in organisms),
        "the organism without a defense": any(lineage.organism for lineage in organisms),
        "the defense under test": any(trial.after for trial in claims),
        "a no-op of equal dose, for every dose": bool(claims)
        and all(_has_no_ops(run, lineage) for lineage in organisms),
        "harmless planted facts under the same defense": "facts" in arms,
        "a defense that sees the trigger": "positive" in arms,
        "the defense on the model's own answers": ON_POLICY in defenses,
        "relearning after the defense": any(trial.relearned for trial in claims),
        "the equally defended twin": any(trial.after_twin for trial in claims),
        "relearning of the equally defended twin": any(trial.relearned_twin for trial in claims),
    }
    return [name for name, ran in present.items() if not ran]


def _has_no_ops(run: Run, organism: Lineage) -> bool:
    """Whether each defense under test stands beside its own no-op of equal dose, on the same organism."""
    own = {told.defense: told.no_op for told in run.meta.headlines}
    there = {
        (name_of(trial.defense), trial.dose)
        for trial in organism.trials
        if trial.arm == "noop" and trial.after
    }
    return {(own.get(trial.defense, "no-op"), trial.dose) for trial in organism.claims} <= there
