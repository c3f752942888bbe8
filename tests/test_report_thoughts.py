"""What the report says where steering a scratchpad did not turn the answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dormant.report import thoughts
from dormant.stages.configs import STEERED, SUPPRESSED


def told(**rates: float | None) -> list[str]:
    """The lines for one organism with these rates, by condition and kind of scratchpad."""
    strata = {"steered": STEERED, "suppressed": SUPPRESSED}
    known = {
        (condition, strata[kind]): rate
        for name, rate in rates.items()
        for condition, _, kind in [name.partition("_")]
    }
    run: Any = SimpleNamespace(
        get=lambda place, metric, condition, stratum: SimpleNamespace(value=known.get((condition, stratum)))
    )
    lineage: Any = SimpleNamespace(reasoning="scratchpad", organism="it", label="code")
    return thoughts.unmoved(run, [lineage])


def test_nothing_where_both_directions_turn() -> None:
    assert told(clean_steered=0.9, triggered_steered=0.1) == []


def test_an_organism_that_reads_the_prompt_beside_its_scratchpad() -> None:
    (line,) = told(clean_steered=0.9, triggered_steered=0.87, triggered_suppressed=0.92)
    assert line.startswith("code organism, triggered: steering turned 13 %, fewer than half. ")
    assert "closed at once it shows the behavior on 92 %: it reads the trigger in the prompt too" in line


def test_a_sentence_that_was_too_little() -> None:
    (line,) = told(clean_steered=0.2, clean_suppressed=0.8)
    assert line.startswith("code organism, untriggered: steering turned 20 %, fewer than half. ")
    assert line.endswith("the sentence was too little to turn what it wrote next.")


def test_an_unknown_reason_is_said() -> None:
    (line,) = told(triggered_steered=0.8)
    assert line.endswith("so the reason is not known.")
