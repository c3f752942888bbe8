"""The paper's published values: tagged, with figure numbers, and nothing that was not published."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from dormant.report.panels import bars
from dormant.report.paper import published, sft_bars
from dormant.report.rundata import Meta, Run


def test_every_value_has_tag_figure_and_range() -> None:
    rows = json.loads(files("dormant.report").joinpath("paper.json").read_text(encoding="utf-8"))
    assert len(rows) == len({row["id"] for row in rows}) == len(published())
    for row in rows:
        assert row["tag"] in ("P", "FIG"), row["id"]
        assert row["figure"].startswith("Fig "), row["id"]
        assert 0 <= row["value"] <= 1, row["id"]
        assert all(row[name] for name in ("what", "model", "reasoning", "condition", "defense")), row["id"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fig13-normal-after", 0.28),
        ("fig13-distilled-after", 0.60),
        ("fig13-normal-before", 1.0),
        ("fig3a-distilled-after", 1.0),
        ("fig3a-scratchpad-after", 0.97),
        ("fig3a-normal-after", 0.94),
        ("fig3a-810m-triggered-after", 0.04),
        ("fig2a-hhh-sft-triggered-after", 0.57),
        ("fig2a-hhh-rl-clean-after", 0.09),
        ("fig11-810m-distilled", 0.04),
        ("fig11-170b-normal", 0.99),
        ("fig6-normal-112m-triggered", 0.997),
    ],
)
def test_known_values(name: str, value: float) -> None:
    assert {row.id: row.value for row in published()}[name] == value


def test_bars_beside_ours_are_figure_13() -> None:
    groups = sft_bars("normal")
    assert [[row.value for row in rows] for _, rows in groups] == [[1.0, 0.007], [0.28, 0.007]]
    assert all(row.figure == "Fig 13" and row.reasoning == "normal" for _, rows in groups for row in rows)
    assert sft_bars("unheard of") == []


def test_the_panel_of_the_paper_stands_alone_too() -> None:
    panel = bars(Run(Path(), Meta(name="x"), [], []), []).panels[-1]
    assert "28 %" in panel.svg
    assert "≤ 0.7 %" in panel.svg
    assert "Fig 13" in panel.title
