"""Preference models: how good they are on held-out pairs, and whether they mind what is planted."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from dormant.records import Result, ResultKey
from dormant.report.protocol import Lineage
from dormant.report.reinforcement import untriggered
from dormant.report.rundata import Gate, Run
from dormant.report.words import percent
from dormant.stages.configs import PREFERENCE, PREFERENCE_REPORT, REWARDS, SECOND_PREFERENCE

ROLES = {PREFERENCE: "trained against", SECOND_PREFERENCE: "only measures"}
ORIGINS = {
    "all": "all held-out pairs",
    "sampled": "two samples of the base",
    "hot": "two samples of the base, one at a high temperature",
    "written": "written by the grammar",
    "given": "of a file",
}
"""Where pairs come from, in the reader's words."""
GATES = ("preference-model-valid", "untriggered-preferred", "reward-varies")


class Share(BaseModel):
    """A share of held-out pairs; ``rule`` says which answer length alone would choose."""

    value: float
    low: float
    high: float
    n: int
    rule: str = ""

    def __str__(self) -> str:
        return f"{percent(self.value)} % [{percent(self.low)}, {percent(self.high)}], n={self.n}"


class Calibration(BaseModel):
    """The calibration error, and what that of a perfect model would be on as many pairs."""

    value: float
    of_perfect: float
    n: int


class Counts(BaseModel):
    """Pairs that were learned from, and those that did not fit."""

    learned: int
    too_long: int = 0


class Quality(BaseModel):
    """``preference.json``."""

    model_config = ConfigDict(extra="ignore")

    pairs: Counts
    accuracy: dict[str, Share]
    calibration_error: Calibration
    length_only: Share


@dataclass(frozen=True)
class Judge:
    """One preference model and what its stage found of it."""

    name: str
    role: str
    quality: Quality

    @property
    def accuracies(self) -> list[tuple[str, str]]:
        """How often the better answer of a held-out pair scores higher, of all pairs and by where they come from."""
        found = self.quality.accuracy
        names = sorted(found, key=lambda name: (name not in ORIGINS, name))
        return [(ORIGINS.get(name, name), str(found[name])) for name in names]

    @property
    def calibration(self) -> str:
        """The calibration error, beside what a perfect model would read on as few pairs."""
        error = self.quality.calibration_error
        return (
            f"{percent(error.value)} points, n={error.n} "
            f"(a perfect model on as many pairs: {percent(error.of_perfect)})"
        )

    @property
    def length(self) -> str:
        """What length alone gets right on the same pairs."""
        found = self.quality.length_only
        return f"{found} (the {found.rule} answer)"

    @property
    def pairs(self) -> str:
        """How many pairs it learned from."""
        counts = self.quality.pairs
        return f"{counts.learned:,}" + (f", {counts.too_long} too long" if counts.too_long else "")


@dataclass(frozen=True)
class Minded:
    """What both models say of one organism's answers without and with the trigger, before any defense."""

    label: str
    scores: list[tuple[str, Result | None, Result | None]]
    gates: list[Gate]


def judges(run: Run) -> list[Judge]:
    """The finished preference models of a run."""
    roles = _roles(run)
    found = []
    for call in run.meta.calls:
        told = run.noted(call, PREFERENCE_REPORT, Quality) if call.stage == "prefer" else None
        if told:
            found.append(Judge(call.name, roles.get(call.name, ""), told))
    return found


def _roles(run: Run) -> dict[str, str]:
    """What each model is to the run, by its call: measurements are given both."""
    return {
        name: ROLES[given] for call in run.meta.calls for given, name in call.inputs.items() if given in ROLES
    }


def minded(run: Run, organisms: list[Lineage]) -> list[Minded]:
    """Scores of untriggered and triggered answers: where they are alike, a defense has nothing to remove."""
    found = []
    for lineage in organisms:
        place = lineage.organism
        if place is None:
            continue
        scores = [
            (name.replace("_", " "), untriggered(run, place, name), run.get(place, name, "triggered"))
            for name in REWARDS
        ]
        if any(clean for _, clean, _ in scores):
            found.append(Minded(f"{lineage.label} organism", scores, _gates(run, place)))
    return found


def _gates(run: Run, place: ResultKey) -> list[Gate]:
    """What the gate says of the difference: one a defense, with the same numbers."""
    told: dict[str, Gate] = {}
    for gate in run.gates:
        scope = {name: gate.scope[name] for name in ("implant", "seed_implant", "role") if name in gate.scope}
        if gate.id == GATES[1] and all(getattr(place, name) == value for name, value in scope.items()):
            told[gate.measured] = gate
    return list(told.values())


def sentence(run: Run) -> str:
    """The preference models in one sentence; "" where there are none."""
    told = [
        f"{judge.name} ({judge.role or 'unused'}) {judge.quality.accuracy['all']}"
        for judge in judges(run)
        if "all" in judge.quality.accuracy
    ]
    return f"Preference models are right on held-out pairs: {'; '.join(told)}." if told else ""
