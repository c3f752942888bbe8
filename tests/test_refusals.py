"""Which rows failed gates take the value from: asked of every gate and row, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_fixture as fixture
from dormant.gates import REFUSABLE, TWIN_PRESENT, Gate, refuse
from dormant.records import Result, ResultKey

ROWS = [row for row in fixture.results() if not row.gates]
FIELDS = sorted(ResultKey.model_fields)


def asked_one_by_one(row: Result, gates: list[Gate]) -> list[str]:
    """The ids of the failed gates that cover a row or what it is a difference from."""
    keys = [row.key]
    if row.metric.endswith("_vs_twin"):
        keys.append(row.key.model_copy(update={"role": "twin"}))
    if row.metric.endswith("_change"):
        keys.append(row.key.before)
    failed = [gate for gate in gates if not gate.ok and gate.id != TWIN_PRESENT]
    covering = {gate.id for gate in failed if any(map(gate.covers, keys))}
    return sorted(covering) if row.metric in REFUSABLE else []


@st.composite
def scopes(draw: st.DrawFn) -> dict[str, Any]:
    """Some fields of the key of some row, so that gates cover one row, many, or a mixture that none has."""
    key = draw(st.sampled_from(ROWS)).key
    return {name: getattr(key, name) for name in draw(st.sets(st.sampled_from(FIELDS), max_size=5))}


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    name = draw(st.sampled_from(["unscored-share", "reward-varies", "untriggered-ceiling", TWIN_PRESENT]))
    return Gate(name, draw(st.sampled_from([True, False, None])), "", "", "", draw(scopes()))


@settings(max_examples=60, deadline=None)
@given(st.lists(gates(), max_size=6))
def test_a_row_is_refused_by_just_the_gates_that_cover_it(some: list[Gate]) -> None:
    for row, refused in zip(ROWS, refuse(ROWS, some), strict=True):
        ids = asked_one_by_one(row, some)
        nothing = {"value": None, "low": None, "high": None, "gates": ids}
        assert refused == (row.model_copy(update=nothing) if ids else row)


def test_near_misses_together_are_refused_with_one_family_of_them() -> None:
    family = next(row for row in ROWS if row.key.condition.startswith("near:") and row.metric == "shown")
    together = family.model_copy(update={"key": family.key.model_copy(update={"condition": "near"})})
    gate = Gate("unscored-share", False, "", "", "", dict(family.key))
    refused = refuse([family, together], [gate])
    assert [row.gates for row in refused] == [["unscored-share"]] * 2


@pytest.mark.parametrize("metric", ["right", "kind"])
def test_what_is_no_rate_of_the_behavior_is_never_refused(metric: str) -> None:
    row = next(row for row in ROWS if row.metric == "shown").model_copy(update={"metric": metric})
    assert refuse([row], [Gate("unscored-share", False, "", "", "")]) == [row]
