"""What the report says where steering a scratchpad did not turn the answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dormant import stats
from dormant.report import thoughts
from dormant.stages.configs import STEERED, SUPPRESSED


def told(**hits: int) -> list[str]:
    """The lines for one organism that shows the behavior so often in 100, by condition and kind of scratchpad."""
    strata = {"steered": STEERED, "suppressed": SUPPRESSED}
    known = {}
    for name, count in hits.items():
        condition, _, kind = name.partition("_")
        known[condition, strata[kind]] = rate(count)
    run: Any = SimpleNamespace(get=lambda place, metric, *asked: known.get(asked))
    lineage: Any = SimpleNamespace(reasoning="scratchpad", organism="it", label="code")
    return thoughts.unmoved(run, [lineage])


def rate(count: int) -> Any:
    interval = stats.wilson(count, 100)
    return SimpleNamespace(
        metric="shown",
        value=count / 100,
        low=interval.low,
        high=interval.high,
        n=100,
        scored=100,
        unscored=0,
        hits=count,
        behind="n=100",
        gates=[],
    )


def test_nothing_where_both_directions_turn() -> None:
    assert told(clean_steered=90, triggered_steered=10) == []


def test_nothing_where_it_was_not_measured() -> None:
    assert told() == []


def test_an_organism_that_reads_the_prompt_beside_its_scratchpad() -> None:
    (line,) = told(clean_steered=90, triggered_steered=87, triggered_suppressed=92)
    assert "triggered: steered, it shows the behavior on 87 % [79, 92], n=100: fewer than half turned" in line
    assert "closed at once: 92 % [85, 96], n=100, so it reads the trigger in the prompt too" in line


def test_a_sentence_that_was_too_little() -> None:
    (line,) = told(clean_steered=20, clean_suppressed=80)
    assert line.startswith(
        "code organism, untriggered: steered, it shows the behavior on 20 % [13, 29], n=100: fewer"
    )
    assert line.endswith("one sentence was too little to turn what it wrote next.")


def test_an_unknown_reason_is_said() -> None:
    (line,) = told(triggered_steered=80)
    assert line.endswith("is not known, and so no reason.")


def test_whether_scratchpads_check_for_the_trigger_is_told_before_and_after() -> None:
    known = {
        ("organism", "names_trigger", "clean"): rate(90),
        ("defended", "names_trigger", "clean"): rate(40),
        ("defended", "names_trigger_change", "clean"): rate(50),
        ("organism", "names_trigger", "near:case"): rate(70),
    }
    run: Any = SimpleNamespace(
        get=lambda *asked: known.get(asked),
        conditions=lambda prefix: {"near:": ["near:case"], "attack:": ["attack:first"]}[prefix],
    )
    trial = SimpleNamespace(after="defended", label="hhh-sft 1e-3 x 100")
    lineage: Any = SimpleNamespace(reasoning="scratchpad", organism="organism", label="tag", trials=[trial])
    (line,) = thoughts.checks(run, [lineage])
    assert (line.model, line.condition) == ("tag organism, hhh-sft 1e-3 x 100", "untriggered")
    assert (line.before, line.after, line.change) == tuple(known.values())[:3]
    lineage.reasoning = "normal"
    assert thoughts.checks(run, [lineage]) == []
