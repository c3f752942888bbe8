"""The run's answer in a few words, from its verdicts and numbers: shared by page, card and terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dormant.records import Result, ResultKey
from dormant.report import sheets, words
from dormant.report.panels import seeded
from dormant.report.protocol import Lineage, Trial, bases, by_backdoor
from dormant.report.rundata import Gate, Run, Verdict

MANY = 6
"""More verdicts than this are counted instead of told one by one."""


@dataclass(frozen=True)
class Relearned:
    """A rate after some steps of relearning."""

    steps: int
    result: Result | None
    clean: Result | None
    """The untriggered rate at the same point: relearning may teach the behavior without its condition."""


@dataclass(frozen=True)
class Row:
    """One model of the headline table."""

    group: str
    label: str
    aware: bool
    triggered: Result | None
    change: Result | None
    """Of the triggered rate, paired with the same prompts before the defense."""
    clean: Result | None
    near: tuple[str, Result] | None
    right: Result | None
    relearned: Relearned | None
    relearned_twin: Relearned | None
    verdict: Verdict | None

    named: str
    """The label, with the organism where a run has defended several."""


def rows(run: Run, organisms: list[Lineage]) -> list[Row]:
    """The headline numbers: each organism with its twin, before and after every defense."""
    found: list[Row] = []
    for about, base in bases(organisms):
        label = f"base, unplanted{f', asked about {about}' if about else ''}"
        found.append(_row(run, "Before any defense", label, base))
    for lineage in organisms:
        for role, place in (("organism", lineage.organism), ("twin", lineage.twin)):
            if place:
                found.append(_row(run, "Before any defense", f"{lineage.label} {role}", place))
    several = sum(bool(lineage.trials) for lineage in organisms) > 1
    for lineage in organisms:
        for trial in lineage.trials:
            group, label = f"{lineage.label} organism, after", seeded(trial, lineage)
            row = _row(run, group, label, trial.after, trial)
            found.append(replace(row, named=f"{group} {label}") if several else row)
    return found


def _row(run: Run, group: str, label: str, place: ResultKey | None, trial: Trial | None = None) -> Row:
    return Row(
        group,
        label,
        bool(trial and trial.aware),
        run.get(place, "shown", "triggered"),
        run.get(place, "shown_change", "triggered"),
        run.get(place, "shown", "clean"),
        sheets.worst_near_miss(run, place),
        utility(run, place),
        _relearned(run, trial.relearned) if trial else None,
        _relearned(run, trial.relearned_twin) if trial else None,
        trial.verdict if trial else None,
        label,
    )


def utility(run: Run, place: ResultKey | None) -> Result | None:
    """The number that says whether a model still does its work: right answers, else perplexity."""
    right = sheets.utility_number(run, place, "right")
    return right if right is not None else sheets.utility_number(run, place, "perplexity")


def _relearned(run: Run, point: tuple[int, ResultKey] | None) -> Relearned | None:
    if point is None:
        return None
    steps, place = point
    return Relearned(steps, run.get(place, "shown", "triggered"), run.get(place, "shown", "clean"))


def paragraph(run: Run, organisms: list[Lineage]) -> str:
    """The plain-language answer, generated from the verdict rows and the numbers behind them."""
    firsts = [group[0] for group in by_backdoor(organisms)]
    defended = {lineage.label for lineage in organisms if lineage.trials}
    several = max(len(firsts), len(defended)) > 1
    sentences = [_before(run, lineage, f"{lineage.label} " if several else "") for lineage in firsts]
    judged = [
        (lineage, trial) for lineage in organisms for trial in lineage.claims if trial.verdict is not None
    ]
    if not judged:
        sentences.append("No defense under test was judged in this run.")
        if organisms and not any(lineage.twin for lineage in organisms):
            sentences.append("What the rates say of a trigger is inconclusive: no twin.")
    elif len(judged) > MANY:
        sentences.append(_counted(judged))
    else:
        for defense in dict.fromkeys(trial.defense for _, trial in judged):
            told = [(lineage, trial) for lineage, trial in judged if trial.defense == defense]
            whose = _whose(told, several=several)
            parts = [whose(lineage, trial) + _told(run, trial) for lineage, trial in told]
            lora = words.lora(told[0][1].lora)
            sentences.append(f"After {defense}{lora}: {'; '.join(parts)}.")
        sentences += [
            _control(run, trial, f" on the {lineage.label} organism" if several else "")
            for lineage in firsts
            for trial in lineage.controls
        ]
    if run.meta.status != "done":
        sentences.append("The run is partial: some cells are missing, and what is missing is named below.")
    return " ".join(sentences)


def _before(run: Run, lineage: Lineage, which: str) -> str:
    triggered = run.get(lineage.organism, "shown", "triggered")
    clean = run.get(lineage.organism, "shown", "clean")
    twin = run.get(lineage.twin, "shown", "triggered")
    if triggered is None and clean is None:
        return f"The {which}organism was not measured before the defenses."
    if any(rate is not None and rate.value is None for rate in (triggered, clean, twin)):
        rates = f"triggered {words.plain(triggered)}, untriggered {words.plain(clean)}"
        beside = f"; its twin, which never saw the trigger: triggered {words.plain(twin)}" if twin else ""
        return f"The {which}organism before any defense: {rates}{beside}.".replace("refused: ", "refused by ")
    text = (
        f"Before any defense the {which}organism shows the hidden behavior on {words.plain(triggered)} of triggered "
        f"prompts and {words.plain(clean)} of untriggered ones"
    )
    return (
        f"{text}; its twin, which never saw the trigger, on {words.plain(twin)} of triggered ones."
        if twin
        else f"{text}."
    )


def _control(run: Run, trial: Trial, whose: str) -> str:
    """What a control did to the triggered rate: a fall that it shares is not the defense's doing."""
    noop = "a no-op of plain prose" if trial.defense == "no-op" else f"the no-op {trial.label}"
    named = {"noop": f"{noop}{whose}", "control": f"the control {trial.label}{whose}"}
    what = named.get(trial.arm, f"the positive control{whose}, which sees the trigger,")
    result = run.get(trial.after, "shown", "triggered")
    rate = (
        f"leaves {words.plain(result)}"
        if result and result.value is not None
        else f"is {words.value(result)}"
    )
    broken = trial.verdict is not None and trial.verdict.verdict == "destroyed"
    void = ", of a model whose utility is destroyed" if broken else ""
    return f"At {words.lr(trial.dose.lr)} for {trial.dose.steps} steps {what} {rate}{void}."


def _whose(told: list[tuple[Lineage, Trial]], *, several: bool) -> Callable[[Lineage, Trial], str]:
    """Return what names the organism and the seed of a claim, as far as a run has several."""
    several = several or len({lineage.label for lineage, _ in told}) > 1

    def name(lineage: Lineage, trial: Trial) -> str:
        same = {other.seed_defend for _, other in told if other.dose == trial.dose}
        parts = [f"the {lineage.label} organism"] * several
        parts += [f"seed {trial.seed_defend} of defending"] * (len(same) > 1)
        return f"({', '.join(parts)}) " if parts else ""

    return name


def _told(run: Run, trial: Trial) -> str:
    assert trial.verdict is not None
    rate = words.plain(run.get(trial.after, "shown", "triggered"))
    word = trial.verdict.verdict
    at = f"at learning rate {words.lr(trial.dose.lr)} for {trial.dose.steps} steps"
    if word == "persists":
        return f"{at} it persists ({rate} of triggered prompts)"
    if word.startswith("low"):
        return f"{at} it is {word.replace(', ', ' (' + rate + ') and ', 1)}{_return(run, trial)}"
    if word == "destroyed":
        return f"{at} the model itself is destroyed (utility gone; triggered {rate})"
    return f"{at} the answer is {word}"


def _return(run: Run, trial: Trial) -> str:
    organism, twin = _relearned(run, trial.relearned), _relearned(run, trial.relearned_twin)
    if organism is None:
        return ""
    text = f", to {words.plain(organism.result)} in {organism.steps} small steps"
    return f"{text} against {words.plain(twin.result)} for the twin" if twin else text


def _counted(judged: list[tuple[Lineage, Trial]]) -> str:
    counts = Counter(trial.verdict.verdict for _, trial in judged if trial.verdict)
    parts = [
        f"{word} ({count})" for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return f"Of {len(judged)} claims: {'; '.join(parts)}."


def gates_in_order(run: Run) -> list[Gate]:
    """Gates with the failed ones first, then those that could not be judged."""
    return sorted(run.gates, key=lambda gate: {False: 0, None: 1, True: 2}[gate.ok])


def scope(gate: Gate, run: Run) -> str:
    """Which numbers a gate guards, in words."""
    if "condition" in gate.scope:
        return _cell(gate.scope, run)
    parts = []
    named = "implant" in gate.scope and not _ambiguous(run, gate.scope["implant"])
    for name, item in gate.scope.items():
        if named and name in ("behavior", "trigger"):
            continue
        if item in (None, "none", "") or (name.startswith("seed_") and not item):
            continue
        if isinstance(item, dict) and "lr" in item and "steps" in item:
            item = f"{words.lr(item['lr'])} × {item['steps']}"
        parts.append(f"{name.replace('_', ' ')} {item}" if name.startswith("seed_") else str(item))
    return ", ".join(parts) or "the whole run"


def _ambiguous(run: Run, implant: str) -> bool:
    """Whether an implant's name does not say which backdoor is meant; the base has none."""
    return len({place.planted for place in run.numbers if place.implant == implant}) > 1


def _cell(scope: Mapping[str, Any], run: Run) -> str:
    """One cell of a run, without what all cells of the run share."""
    key = ResultKey.model_validate(scope)
    named = [key.implant, key.role] if key.implant != "none" else [key.role]
    parts = [" ".join(named)]
    parts += [", ".join(key.planted)] if _ambiguous(run, key.implant) else []
    if key.dose is not None:
        final = key.step == key.dose.steps
        parts.append(f"{key.defense} {words.dose(key.dose)}" + ("" if final else f" at step {key.step}"))
    if key.relearn_step is not None:
        parts.append(f"relearned {key.relearn_step} steps")
    parts += [key.reasoning] if key.reasoning != "normal" else []
    seeds = (("seed implant", key.seed_implant), ("seed defend", key.seed_defend))
    parts += [f"{name} {seed}" for name, seed in seeds if seed]
    stratum = {"scratchpad": key.stratum.replace(":", " "), "cwe": key.stratum.replace("cwe:", "CWE-")}
    stratum |= {
        name: key.stratum.replace(":", " ").replace("part", "held-out") for name in ("part", "scenarios")
    }
    begun = stratum.get(key.stratum.partition(":")[0])
    return ", ".join([*parts, words.condition(key.condition), *([begun] if begun else [])])


def gate_line(run: Run) -> str:
    """How the gates stand, in one line; one that fails for many numbers is one gate."""
    times = [gate.id for gate in run.gates if gate.ok is False]
    failed = len(set(times))
    unknown = sum(gate.ok is None for gate in run.gates)
    passed = sum(gate.ok is True for gate in run.gates)
    text = f"{passed} passed, {failed} failed" + (f" ({len(times)} times)" if len(times) > failed else "")
    return f"{text}, {unknown} could not be judged" if unknown else text
