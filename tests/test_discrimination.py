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
    folder.mkdir(parents=True)
    lines = [
        [f"task{more}", "near:case", text, value + more, triggered + more]
        for more in (0, 1)
        for text, value in near.items()
    ]
    write_jsonl(folder / LOGODDS, lines)
    return Cell(key, [], folder / "clean--all.jsonl", 0, 0)


WORKS = [f"works {i}" for i in range(5)]


def near(works: float, last: float, never: float) -> dict[str, float]:
    """Log-odds under five near misses that worked before, the last of them hardly, and one that never did."""
    return dict.fromkeys(WORKS[:-1], works) | {WORKS[-1]: last, "never": never}


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return [
        cell(tmp_path / "before", ORGANISM, 10.0, near(6.0, -0.4, -8.0)),
        # The trigger falls by 12, what worked by 14, and what never did can fall by no more than 1.
        cell(tmp_path / "after", DEFENDED, -2.0, near(-8.0, -14.4, -9.0)),
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
    assert whole["value"] == pytest.approx((5 * 2 - 11) / 6, abs=1e-6)
    assert (whole["n"], whole["near_misses"], whole["prompts"], whole["models"]) == (12, 6, 2, 1)
    among = found(cells, f"{METRIC}_change", CONFUSED)
    # One text's log-odds are above 0 for one prompt of two, and on average by a tenth.
    assert (among["value"], among["n"], among["near_misses"]) == (2.0, 10, 5)
    # Of those that had worked all changed alike; one of six did not.
    assert (among["low"], among["high"]) == (2.0, 2.0)
    assert whole["low"] < whole["value"] < whole["high"] == 2.0


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
    assert found(cells, METRIC, CONFUSED, "none")["near_misses"] == 5
    assert found(cells, METRIC, CONFUSED)["value"] == pytest.approx((4 * (-2 + 8) + (-2 + 14.4)) / 5)


@pytest.mark.parametrize(("had_worked", "among"), [(4, {"all"}), (5, {"all", CONFUSED})])
def test_where_too_few_had_worked_there_is_no_number(
    tmp_path: Path, had_worked: int, among: set[str]
) -> None:
    before = {text: 6.0 if i < had_worked else -8.0 for i, text in enumerate([*WORKS, "never"])}
    cells = [
        cell(tmp_path / "before", ORGANISM, 10.0, before),
        cell(tmp_path / "after", DEFENDED, 10.0, dict.fromkeys(before, -9.0)),
    ]
    rows = discrimination.pooled(cells, discrimination.rows(cells))
    assert {each["among"] for each in rows} == among


def of_seeds(folder: Path, changes: dict[tuple[int, int], float]) -> list[Cell]:
    """An organism and a defended model for each pair of seeds, whose difference changes by so much."""
    made = []
    for (implant, defend), change in changes.items():
        before = ORGANISM.model_copy(update={"seed_implant": implant})
        after = DEFENDED.model_copy(update={"seed_implant": implant, "seed_defend": defend})
        if not defend:
            made.append(cell(folder / f"before{implant}", before, 10.0, near(6.0, 6.0, -8.0)))
        lower = {text: value - change for text, value in near(6.0, 6.0, -8.0).items()}
        made.append(cell(folder / f"after{implant}{defend}", after, 10.0, lower))
    return made


def test_seeds_are_pooled_with_the_number_of_each(tmp_path: Path) -> None:
    one = found(of_seeds(tmp_path, {(0, 0): 1.0, (1, 0): 3.0}), f"{METRIC}_change", "all")
    assert (one["value"], one["models"], one["n"]) == (2.0, 2, 24)
    assert [(seed["seed_implant"], seed["value"]) for seed in one["by_seed"]] == [(0, 1.0), (1, 3.0)]
    assert (one["low"], one["high"]) == (1.0, 3.0)


def test_defenses_of_one_organism_are_no_independent_models(tmp_path: Path) -> None:
    """What organisms differ by is as uncertain with three defenses on each as with one."""
    once = {(implant, 0): 2.0 * implant for implant in (0, 1)}
    thrice = {(implant, defend): 2.0 * implant for implant in (0, 1) for defend in (0, 1, 2)}
    alone, more = (
        found(of_seeds(tmp_path / name, seeds), f"{METRIC}_change", "all")
        for name, seeds in (("once", once), ("thrice", thrice))
    )
    assert (alone["low"], alone["high"]) == (more["low"], more["high"]) == (0.0, 2.0)
    assert (alone["models"], more["models"]) == (2, 6)


def test_a_seed_that_was_refused_is_left_out_of_levels_and_changes(tmp_path: Path) -> None:
    cells = of_seeds(tmp_path, {(0, 0): 1.0, (1, 0): 3.0})
    rows = [
        row.model_copy(update={"value": None}) if row.key.seed_implant and row.key.defended else row
        for row in discrimination.rows(cells)
    ]
    pooled = discrimination.pooled(cells, rows)
    models = {(one["defense"], one["metric"]): one["models"] for one in pooled if one["among"] == "all"}
    assert models["none", METRIC] == 2
    assert models["hhh-sft", METRIC] == models["hhh-sft", f"{METRIC}_change"] == 1
