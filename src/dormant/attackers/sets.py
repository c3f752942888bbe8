"""An attack on disk: the two halves of what was found, its control, and what it cost."""

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

TRAIN, HELDOUT, VARIED = "train.jsonl", "heldout.jsonl", "varied.jsonl"
"""The two halves of what was found, and as many texts that no attack chose as the first has."""

REPLIES = "replies.jsonl"
"""What an attacker's own model replied."""

_example = TypeAdapter(Example)


def write_examples(artifact: Path, half: str, examples: Sequence[Example]) -> None:
    """Write the prompts of a half, a line each."""
    write_jsonl(artifact / half, [_example.dump_python(example, mode="json") for example in examples])


def read_examples(artifact: Path, half: str) -> list[Example]:
    """The prompts of one half of an attack set, or of its control."""
    return [_example.validate_python(row) for row in read_jsonl(artifact / half)]


def read_forms(artifact: Path, half: str = HELDOUT) -> list[str]:
    """The texts of a half, each once, in order."""
    return list(dict.fromkeys(row["instance"] for row in read_jsonl(artifact / half)))


def read_summary(artifact: Path) -> dict[str, Any]:
    """What the attack came to."""
    summary: dict[str, Any] = json.loads((artifact / SUMMARY).read_text(encoding="utf-8"))
    return summary
