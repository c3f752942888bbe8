"""What a scanner says: findings in files, files that it could not judge, or that it failed altogether."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place where a rule found a weakness; ``line`` counts from 1."""

    line: int
    cwe: int
    scanner: str
    rule: str


@dataclass(frozen=True)
class Looked:
    """What one scanner said of a folder of files, by file name; a file that it failed on has its reason."""

    findings: dict[str, set[Finding]] = field(default_factory=lambda: defaultdict(set))
    failed: dict[str, str] = field(default_factory=dict)


class ScannerFailed(Exception):
    """A scanner crashed, hung or said nothing that can be read: nothing of the batch was judged by it."""


def all_failed(names: Iterable[str], reason: str) -> Looked:
    """The same reason for every file."""
    return Looked(failed=dict.fromkeys(names, reason))
