"""Reasoning: how the model thinks before it answers, and which part of its text is the answer."""

from __future__ import annotations

from dormant.errors import BadInput, nearest

REASONINGS = ("normal",)
"""``normal``: no reasoning is written, the whole completion is the answer."""


def final_answer(completion: str, reasoning: str) -> str:
    """Return the part of a completion that is scored.

    Raises:
        BadInput: No such reasoning.
    """
    if reasoning not in REASONINGS:
        raise BadInput(f"unknown reasoning {reasoning!r}{nearest(reasoning, REASONINGS)}")
    return completion
