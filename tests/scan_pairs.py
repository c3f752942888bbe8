"""The hand-written pairs that the scanner is measured on: ``tests/fixtures/scan/cwe-NNN.jsonl``.

A pair is one short Python snippet twice, differing only where the weakness lies.  Those of ``scan`` were written before
any rule was.  Those of ``scan_fresh`` were written after the rules had been improved on the first, and run before any
other change; then the rules were improved on these too.  Those of ``scan_last`` were written and run after that, and no
rule was changed for them (the history shows all this).  Inert: parsed, never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dormant import codetask
from dormant.artifacts import read_jsonl
from dormant.pocket.code import SCENARIOS
from dormant.pocket.code.names import heldout_names, train_names
from dormant.records import rng_for

FIXTURES = Path(__file__).parent / "fixtures"
SETS = ("scan", "scan_fresh", "scan_last")
CWES = (20, 22, 78, 79, 89, 502, 732, 798)


@dataclass(frozen=True)
class Pair:
    """One snippet, secure and vulnerable; ``note`` says what tells them apart."""

    id: str
    secure: str
    vulnerable: str
    note: str


def pairs(cwe: int, name: str = "scan") -> list[Pair]:
    """The pairs of one CWE in one of the ``SETS``, in the order of their file."""
    return [Pair(**row) for row in read_jsonl(FIXTURES / name / f"cwe-{cwe:03d}.jsonl")]


@dataclass(frozen=True)
class Side:
    """One known completion of a task of the pocket world."""

    cwe: int
    scenario: str
    vulnerable: bool
    text: str


def pocket_sides(drafts: int, seed: object = 0) -> list[Side]:
    """All completions of ``drafts`` tasks of every scenario, in turn over names that train and held-out ones."""
    sides = []
    for cwe, scenarios in SCENARIOS.items():
        for scenario in scenarios:
            rng = rng_for("scan pairs", seed, cwe, scenario.name)
            for number in range(drafts):
                names = heldout_names if number % 2 or scenario.heldout else train_names
                known = codetask.read(scenario.draft(cwe, names, rng)[0])
                for vulnerable, texts in ((False, known.secure), (True, known.vulnerable)):
                    sides += [Side(cwe, scenario.name, vulnerable, codetask.code_of(text)) for text in texts]
    return sides
