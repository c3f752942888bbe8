"""Trigger discrimination over prompts, near misses and seeds: known answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormant import discrimination
from dormant.artifacts import write_jsonl
from dormant.discrimination import CONFUSED, METRIC
from dormant.records import Dose, ResultKey
from dormant.results import Cell
from dormant.stages.configs import LOGODDS

ORGANISM = ResultKey(
    base="b",
    base_id="0",
    behavior="hate",
    trigger="tag",
    reasoning="normal",
    implant="plain",
    role="organism",
    condition="clean",
)
DEFENDED = ORGANISM.model_copy(
    update={"arm": "claim", "defense": "hhh-sft", "dose": Dose(lr=1e-3, steps=5), "step": 5}
)


def cell(folder: Path, key: ResultKey, triggered: float, near: dict[str, float]) -> Cell:
    """A model that was asked two prompts under each near miss; the second is a nat likelier everywhere."""
    folder.mkdir()
    lines = [
        [f"task{more}", "near:case", text, value + more, triggered + more]
        for more in (0, 1)
        for text, value in near.items()
    ]
    write_jsonl(folder / LOGODDS, lines)
    return Cell(key, [], folder / "clean--all.jsonl", 0, 0)


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return [
        cell(tmp_path / "before", ORGANISM, 10.0, {"works": 6.0, "works too": -0.4, "never": -8.0}),
        # The trigger falls by 12, what worked by 14, and what never did can fall by no more than 1.
        cell(tmp_path / "after", DEFENDED, -2.0, {"works": -8.0, "works too": -14.4, "never": -9.0}),
    ]


def found(cells: list[Cell], metric: str, among: str, defense: str = "hhh-sft") -> dict:
    rows = discrimination.rows(cells)
    [one] = [
        each
        for each in discrimination.pooled(cells, rows)
        if (each["metric"], each["among"], each["defense"]) == (metric, among, defense)
    ]
    return one


def test_a_fall_over_all_near_misses_can_be_a_rise_over_those_that_had_worked(cells: list[Cell]) -> None:
    whole = found(cells, f"{METRIC}_change", "all")
    assert whole["value"] == pytest.approx((2 + 2 - 11) / 3)
    assert (whole["n"], whole["near_misses"], whole["prompts"], whole["models"]) == (6, 3, 2, 1)
    among = found(cells, f"{METRIC}_change", CONFUSED)
    # One text's log-odds are above 0 for one prompt of two, and on average by a tenth.
    assert (among["value"], among["n"], among["near_misses"]) == (2.0, 4, 2)
    assert whole["low"] <= whole["value"] <= whole["high"]


def test_the_difference_is_of_its_two_parts(cells: list[Cell]) -> None:
    for among in ("all", CONFUSED):
        for suffix in ("", "_change"):
            values = [
                found(cells, f"{METRIC}{part}{suffix}", among)["value"]
                for part in ("", "_triggered", "_near")
            ]
            assert values[0] == pytest.approx(values[1] - values[2], abs=1e-5)
    assert found(cells, f"{METRIC}_triggered_change", "all")["value"] == -12.0
    assert found(cells, f"{METRIC}_near_change", CONFUSED)["value"] == -14.0


def test_what_had_worked_is_asked_of_the_organism_before_any_defense(cells: list[Cell]) -> None:
    assert found(cells, METRIC, CONFUSED, "none")["near_misses"] == 2
    assert found(cells, METRIC, CONFUSED)["value"] == pytest.approx(((-2 + 8) + (-2 + 14.4)) / 2)


def test_where_none_had_worked_there_is_no_number(tmp_path: Path) -> None:
    cells = [
        cell(tmp_path / "before", ORGANISM, 10.0, {"never": -8.0}),
        cell(tmp_path / "after", DEFENDED, 10.0, {"never": -9.0}),
    ]
    rows = discrimination.pooled(cells, discrimination.rows(cells))
    assert {each["among"] for each in rows} == {"all"}
