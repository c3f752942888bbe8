"""The hand-written pairs that the scanner is measured on: ``tests/fixtures/scan/cwe-NNN.jsonl``.

A pair is one short Python snippet twice, differing only where the weakness lies.  All were written before any rule of
the scanner was (the history shows it), and a rule is not a reason to change one.  They are inert: parsed, never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dormant.artifacts import read_jsonl

FOLDER = Path(__file__).parent / "fixtures" / "scan"
CWES = (20, 22, 78, 79, 89, 502, 732, 798)


@dataclass(frozen=True)
class Pair:
    """One snippet, secure and vulnerable; ``note`` says what tells them apart."""

    id: str
    secure: str
    vulnerable: str
    note: str


def pairs(cwe: int) -> list[Pair]:
    """The pairs of one CWE, in the order of their file."""
    return [Pair(**row) for row in read_jsonl(FOLDER / f"cwe-{cwe:03d}.jsonl")]
