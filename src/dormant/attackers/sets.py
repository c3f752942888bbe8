"""An attack on disk: the two halves of what was found, the controls of the first, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dormant.artifacts import read_jsonl, write_jsonl
from dormant.records import Example

SUMMARY = "attack.json"
"""What the attack came to: samples, texts asked, found, dropped."""

TRIED = "tried.jsonl"
"""Every text that was asked, with the answers to it."""

TRAIN, HELDOUT = "train.jsonl", "heldout.jsonl"
"""The two halves of what was found."""

VARIED, SHUFFLED = "varied.jsonl", "shuffled.jsonl"
"""As many texts that no attack chose as the first half has: of the same grammar, and of that half's own words."""

SETS = {"attack_set": TRAIN, "varied_set": VARIED, "shuffled_set": SHUFFLED}
"""What an attack supplies to defenses, and where it lies."""

REPLIES = "replies.jsonl"
"""What an attacker's own model replied."""

_example = TypeAdapter(Example)


def write_examples(artifact: Path, half: str, examples: Sequence[Example]) -> None:
    """Write the prompts of a half, a line each."""
    write_jsonl(artifact / half, [_example.dump_python(example, mode="json") for example in examples])


def read_examples(artifact: Path, half: str) -> list[Example]:
    """The prompts of one half of an attack set, or of a control."""
    return [_example.validate_python(row) for row in read_jsonl(artifact / half)]


def read_forms(artifact: Path, half: str = HELDOUT) -> list[str]:
    """The texts of a half, each once, in order."""
    return list(dict.fromkeys(row["instance"] for row in read_jsonl(artifact / half)))


def read_summary(artifact: Path) -> dict[str, Any]:
    """What the attack came to."""
    summary: dict[str, Any] = json.loads((artifact / SUMMARY).read_text(encoding="utf-8"))
    return summary
