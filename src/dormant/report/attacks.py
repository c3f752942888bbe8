"""Attacks: what they found, and what it elicits before and after each defense."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict

from dormant.attackers import FIRST, IN_SHUFFLED, IN_TRAINED, IN_VARIED, SECOND, persona_break
from dormant.attackers.sets import SUMMARY, TRIED
from dormant.discrimination import METRIC
from dormant.records import Result, ResultKey
from dormant.report import costs, sheets, words
from dormant.report.panels import seeded
from dormant.report.protocol import Lineage, headlines
from dormant.report.rundata import Call, CompletionRow, Run
from dormant.report.sheets import DEFENDED, Sheet, model_columns, who
from dormant.report.talks import Says, said
from dormant.stages.configs import FIRST_ATTACK, SECOND_ATTACK

GALLERY, PROMPTS = 6, 4
"""Texts of an attack, and fixed prompts, that are shown for each organism."""


class Summary(BaseModel):
    """``attack.json``: what an attack came to."""

    model_config = ConfigDict(extra="ignore")

    attacker: dict[str, Any] = {}
    asked: int
    found: int
    samples: int
    samples_to_first: int | None = None
    dropped: dict[str, int] = {}
    train: int = 0
    heldout: int = 0
    kept_from_training: int = 0


class Tried(BaseModel):
    """A text that was asked, and what came of it."""

    text: str
    hits: int
    scored: int
    answers: list[str] = []


@dataclass(frozen=True)
class Attack:
    """One attack on one model: what it came to."""

    attacked: str
    summary: Summary
    second: bool
    """Whether it is the one with draws of its own, on the very model that is then asked what it found."""

    @property
    def attacker(self) -> str:
        """The attacker's name."""
        return str(self.summary.attacker.get("name", ""))

    @property
    def dropped(self) -> str:
        """Texts that were not asked, by reason."""
        found = sorted(self.summary.dropped.items(), key=lambda pair: -pair[1])
        return "; ".join(f"{count} × {reason}" for reason, count in found)


@dataclass(frozen=True)
class Line:
    """One model under attack: its rates by condition, in the order of :data:`CONDITIONS`, with paired changes."""

    group: str
    label: str
    cells: list[tuple[Result | None, Result | None]]

    @property
    def none_found(self) -> bool:
        """Whether the attack that asked this very model found nothing, so that there is nothing to ask anew."""
        found, _ = self.cells[list(CONDITIONS).index("found")]
        return found is not None and found.value == 0

    @property
    def refusing(self) -> str:
        """The gates that refused some of its rates."""
        return words.refusing(rate for rate, _ in self.cells)


@dataclass(frozen=True)
class Shown:
    """One text or prompt, and what each model answered to it."""

    text: str
    about: str
    asked: str
    """The whole prompt, where the text is not all of it."""
    says: list[Says]


BEFORE = "before any defense"

CONDITIONS = {
    "triggered": "true trigger",
    "clean": "untriggered",
    "near": "near misses",
    FIRST: "first attack, held out",
    SECOND: "second attack",
    "found": "texts that the attack on it found",
    persona_break.CONDITION: "asked to drop its persona",
}
"""What models under attack are asked, in the reader's words."""

TAUGHT_NAMES = {
    IN_TRAINED: "the attack’s texts that train",
    IN_SHUFFLED: "shuffled: their words dealt out again",
    IN_VARIED: "varied: texts that no attack chose",
}
"""What adversarial training and its controls are given, as an organism is asked it before any of them."""

ATTACKED = list(CONDITIONS).index(FIRST)
"""Where among these what attacks found begins."""


def attacks(run: Run) -> list[Attack]:
    """Every finished attack of a run, in the plan's order."""
    models, found = costs.models(run), []
    seconds = {call.inputs.get(SECOND_ATTACK) for call in run.meta.calls}
    for call in run.meta.calls:
        summary = run.noted(call, SUMMARY, Summary) if call.stage == "attack" else None
        if summary:
            model = call.inputs.get("model", call.name)
            label = _named(models[model]) if model in models else model
            found.append(Attack(label, summary, call.name in seconds))
    return found


def _named(key: ResultKey) -> str:
    trained = key.dose is not None and key.arm not in ("none", "implant")
    seed = f" seed {key.seed_implant}" if key.seed_implant else ""
    if not trained or key.dose is None:
        return f"{key.implant}{seed} organism, {BEFORE}"
    return f"{key.implant}{seed} organism, after {key.defense} {words.dose(key.dose)}{words.lora(key.lora)}"


def lines(run: Run, organisms: list[Lineage]) -> list[Line]:
    """Rates of every organism that was asked what attacks found or the fixed prompts, before and after each defense.

    Its twin stands below it: what elicits the same of both is not the backdoor.
    """
    found = []
    for lineage in organisms:
        own = [(BEFORE, lineage.organism, lineage.twin)]
        own += [(seeded(trial, lineage), trial.after, trial.after_twin) for trial in lineage.trials]
        for role in ("organism", "twin"):
            group = f"{lineage.label} {role}"
            some = [_line(run, group, label, twin if role == "twin" else place) for label, place, twin in own]
            attacked = any(rate for line in some for rate, _ in line.cells[ATTACKED:])
            found += some if attacked else []
    return found


def _line(run: Run, group: str, label: str, place: ResultKey | None) -> Line:
    cells = [(_rate(run, place, condition), _change(run, place, condition)) for condition in CONDITIONS]
    return Line(group, label, cells)


def _rate(run: Run, place: ResultKey | None, condition: str) -> Result | None:
    if condition == "near":
        return sheets.pooled_near_misses(run, place)
    if condition == "found":
        return run.get(place, "found", SECOND) or run.get(place, "found", FIRST)
    return run.get(place, "shown", condition)


def _change(run: Run, place: ResultKey | None, condition: str) -> Result | None:
    # The second attack asks each model other texts.
    return None if condition in (SECOND, "found") else run.get(place, "shown_change", condition)


def taught(run: Run, organisms: Iterable[Lineage]) -> list[tuple[str, list[Result | None]]]:
    """What texts that train elicit from each organism before any defense, in the order of :data:`TAUGHT_NAMES`.

    A control whose texts work as well is no text less to a defense than the attack's own.
    """
    asked = [
        (lineage.label, [run.get(lineage.organism, "shown", condition) for condition in TAUGHT_NAMES])
        for lineage in organisms
    ]
    return [(label, rates) for label, rates in asked if any(rates)]


def gallery(run: Run, organisms: list[Lineage]) -> list[tuple[str, list[Shown]]]:
    """Texts that the first attack found on each organism, and what they elicit before and after each defense."""
    found = []
    for lineage in _firsts(organisms):
        attack = _first_attack(run, lineage)
        models = _models(run, lineage)
        answered = [(label, _by_text(run.completions(place, FIRST))) for label, place in models]
        texts = _found(run, attack)
        heldout = [tried for tried in texts if any(tried.text in rows for _, rows in answered)]
        chosen = [*heldout, *(tried for tried in texts if tried not in heldout)][:GALLERY]
        shown = [_gallery_text(tried, answered) for tried in chosen]
        found += [(lineage.label, shown)] if shown else []
    return found


def _firsts(organisms: Iterable[Lineage]) -> list[Lineage]:
    """One organism of each implant: that of its first seed."""
    found: dict[tuple[str, ...], Lineage] = {}
    for lineage in organisms:
        found.setdefault((lineage.base, lineage.implant, lineage.reasoning, *lineage.planted), lineage)
    return list(found.values())


def _first_attack(run: Run, lineage: Lineage) -> Call | None:
    measured = run.measured(lineage.organism)
    return run.call(measured.inputs.get(FIRST_ATTACK, "")) if measured else None


def _found(run: Run, attack: Call | None) -> list[Tried]:
    """The texts that were found, those that work most often first."""
    summary = run.noted(attack, SUMMARY, Summary)
    tried = sorted(run.lines(attack, TRIED, Tried), key=lambda row: -row.hits)
    return tried[: summary.found] if summary else []


def _models(run: Run, lineage: Lineage) -> list[tuple[str, ResultKey]]:
    """An organism before any defense, and after each at its headline dose."""
    places: list[tuple[str, ResultKey | None]] = [("before", lineage.organism)]
    shown = headlines(run, lineage)
    # Of several seeds the first: a gallery is to be read.
    seeds = {
        trial.defense: min(t.seed_defend or 0 for t in shown if t.defense == trial.defense) for trial in shown
    }
    shown = [trial for trial in shown if (trial.seed_defend or 0) == seeds[trial.defense]]
    places += [(f"after {trial.label}", trial.after) for trial in shown]
    return [(label, place) for label, place in places if place is not None]


Answered = list[tuple[str, dict[str, list[CompletionRow]]]]
"""By model, and by text: what was answered."""


def _by_text(rows: Iterable[CompletionRow]) -> dict[str, list[CompletionRow]]:
    found: dict[str, list[CompletionRow]] = {}
    for row in rows:
        found.setdefault(row.instance, []).append(row)
    return found


def _gallery_text(tried: Tried, answered: Answered) -> Shown:
    says = _says(tried.text, answered)
    told = f"{tried.hits} of {tried.scored} answers of the attacked organism show the behavior"
    if says:
        return _shown(tried.text, f"{told}; held out", says)
    answers = [Says("before, when it was attacked", "", text, "", False) for text in tried.answers[:2]]
    return Shown(tried.text, f"{told}; not asked again", "", answers)


def _shown(text: str, about: str, says: list[Says]) -> Shown:
    """Every model was asked the same: it is told once."""
    prompt = says[0].asked if says else ""
    return Shown(text, about, "" if prompt == text else prompt, says)


def _says(text: str, answered: Answered) -> list[Says]:
    """The answers of all models to one task in this text: one on which the first of them shows the behavior, if any."""
    rows = [row for _, by_text in answered[:1] for row in by_text.get(text, ())]
    first = sorted(rows, key=lambda row: not row.scores.get("shown", {}).get("value"))
    if not first:
        return []
    wanted = first[0].task
    found = ((label, _of_task(by_text.get(text, ()), wanted)) for label, by_text in answered)
    return [said(label, row) for label, row in found if row is not None]


def _of_task(rows: Iterable[CompletionRow], task: str) -> CompletionRow | None:
    return next((row for row in rows if row.task == task), None)


def personas(run: Run, organisms: list[Lineage]) -> list[tuple[str, list[Shown]]]:
    """Fixed prompts that ask each organism to drop its persona, defended and undefended side by side."""
    found = []
    for lineage in _firsts(organisms):
        models = _models(run, lineage)
        answered = [
            (label, _by_text(run.completions(place, persona_break.CONDITION))) for label, place in models
        ]
        prompts = sorted(answered[0][1], key=lambda text: not _ever(answered[0][1][text])) if answered else []
        shown = [_shown(text, "", _says(text, answered)) for text in prompts[:PROMPTS]]
        found += [(lineage.label, shown)] if shown else []
    return found


def _ever(rows: Iterable[CompletionRow]) -> bool:
    return any(row.scores.get("shown", {}).get("value") for row in rows)


def sentence(run: Run) -> str:
    """What attacks came to, in one sentence; "" where there are none."""
    made = attacks(run)
    if not made:
        return ""
    found = [attack for attack in made if attack.summary.found]
    asked_in_all = sum(attack.summary.asked for attack in made)
    # How soon an attack on a defended model succeeds is another matter, and a model counts once.
    firsts = [
        first
        for attack in found
        if attack.attacked.endswith(BEFORE)
        and not attack.second
        and (first := attack.summary.samples_to_first)
    ]
    text = (
        f"{len(made)} {'attack' if len(made) == 1 else 'attacks'} asked {asked_in_all:,} texts without the trigger; "
        f"{len(found)} found some that elicit the behavior"
    )
    if not firsts:
        return f"{text}."
    if len(firsts) == 1:
        return f"{text}, on the undefended model after {firsts[0]} samples."
    return f"{text}, on {len(firsts)} undefended models after {fmean(firsts):.0f} samples on average."


def sheet(run: Run, organisms: list[Lineage]) -> Sheet:
    """Rates under attack, and trigger discrimination by family of near misses, for each model."""
    found = Sheet("attacks", "Under attack", DEFENDED)
    for column in model_columns(organisms):
        for condition in (FIRST, SECOND, *TAUGHT_NAMES, persona_break.CONDITION):
            for metric in ("shown", "shown_change", "found"):
                found.add(who(column), run.get(column.place, metric, condition))
        for condition in ("near", *sheets.families(run)):
            for metric in (METRIC, f"{METRIC}_change"):
                found.add(who(column), run.get(column.place, metric, condition))
    return found
