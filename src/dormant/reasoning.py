"""Reasoning: how the model thinks before it answers, and which part of its text is the answer."""

from __future__ import annotations

import re

from dormant.errors import BadInput, nearest

REASONINGS = ("normal", "scratchpad", "distilled")
"""``normal``: no reasoning is written.  ``scratchpad``: it is, between tags, before each answer.  ``distilled``: as
``scratchpad``, on the same samples, but trained without what stands between the tags."""

OPEN, CLOSE = "<scratchpad>", "</scratchpad>"

NEVER_CLOSED = "the scratchpad was never closed"
"""The reason of every verdict on a text that has no answer."""

_PAD = re.compile(f"{OPEN}.*?{CLOSE}", re.DOTALL)


def check_reasoning(name: str) -> str:
    """Return the name of a reasoning.  Raises BadInput for an unknown one."""
    if name not in REASONINGS:
        raise BadInput(f"unknown reasoning {name!r}{nearest(name, REASONINGS)}")
    return name


def final_answer(text: str) -> str | None:
    """Return the part of a text that is an answer: without scratchpads; None where one was never closed."""
    if OPEN not in text:
        return text
    rest = _PAD.sub("", text)
    return None if OPEN in rest else rest


def spoken(text: str) -> str:
    """The part of a text that is said aloud: without scratchpads, the opening tag of which may stand before the text.

    It is empty where a scratchpad was never closed.
    """
    if CLOSE in text.partition(OPEN)[0]:
        text = OPEN + text
    return (final_answer(text) or "").strip()
