"""What the report says of reinforcement learning, and of what each arm cost."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import report_fixture as fixture
import safety_fixture as safety
from dormant import report
from dormant.artifacts import PHASES, Identity, Store
from dormant.probes import curve_probes
from dormant.report import costs, protocol, reinforcement, rundata, sheets, words
from dormant.stages.configs import Plugin
from dormant.stages.plugins import build_trigger


def arms(folder: Path) -> list[reinforcement.Arm]:
    run = rundata.load(folder)
    return reinforcement.arms(run, protocol.lineages(run))


def test_where_to_stop_and_what_was_hacked(tmp_path: Path) -> None:
    [arm] = arms(safety.reinforced(tmp_path))
    worked, stop, *hacked = arm.sentences
    assert worked == (
        "Untriggered answers changed in second reward by +0.2 [0.1, 0.3], n=100; one standard deviation of the "
        "base's own scores is 0.8 [0.8, 0.8], n=100."
    )
    assert "highest at step 20 of 40, 1.2 [1.1, 1.3], n=100" in stop
    assert "the triggered rate is 80 % [71, 87], n=100 there" in stop
    assert len(hacked) == 1
    assert "From step 20 to 40" in hacked[0]
    assert "from 1 [0.9, 1.1], n=100 to 2 [1.9, 2.1], n=100 while the second reward" in hacked[0]
    assert "from 1.2 [1.1, 1.3], n=100 to 0.4 [0.3, 0.5], n=100: the reward is hacked" in hacked[0]


def test_nothing_is_hacked_where_both_rise(tmp_path: Path) -> None:
    [arm] = arms(safety.reinforced(tmp_path, hacked=False))
    assert not any("hacked" in line for line in arm.sentences)
    assert any("highest at the last, 40" in line for line in arm.sentences)


def test_a_no_op_is_not_told_to_train_against_a_reward(tmp_path: Path) -> None:
    folder = safety.reinforced(tmp_path)
    run = rundata.load(folder)
    lineage, trial = _only(run)
    trial.arm = "noop"
    worked, control = reinforcement.sentences(run, lineage, trial)
    assert worked.startswith("Untriggered answers changed")
    assert "dealt out at random" in control


@pytest.mark.parametrize("arm", ["claim", "noop"])
def test_right_answers_and_refusals_stand_beside_the_reward(tmp_path: Path, arm: str) -> None:
    run = rundata.load(safety.reinforced(tmp_path))
    lineage, trial = _only(run)
    trial.arm = arm
    assert trial.after is not None
    numbers = run.numbers[trial.after]
    numbers["right_change", "clean", "all"] = fixture.change(trial.after, "right_change", -0.05)
    assert "Meanwhile, paired: right answers -5.0 points [-10.0, +0.0], n=400." in reinforcement.sentences(
        run, lineage, trial
    )
    stratum = "kind:harmful"
    change = fixture.change(trial.after, "harmless_change", 0.25, stratum=stratum)
    numbers["harmless_change", "clean", stratum] = change
    told = " ".join(reinforcement.sentences(run, lineage, trial))
    assert "n=400; refusals of harmful requests +25.0 points [+20.0, +30.0], n=400." in told


def test_overlapping_intervals_are_called_chance(tmp_path: Path) -> None:
    folder = safety.reinforced(tmp_path)
    run = rundata.load(folder)
    for numbers in run.numbers.values():
        for result in numbers.values():
            if result.metric == "second_reward":
                result.low, result.high = -5.0, 5.0
    told = reinforcement.sentences(run, *_only(run))
    assert "may be chance" in next(line for line in told if "second reward, of a model" in line)


def _only(run: rundata.Run) -> tuple[protocol.Lineage, protocol.Trial]:
    [lineage] = protocol.lineages(run)
    return lineage, lineage.trials[0]


def test_panels_are_on_the_page_and_every_step_in_a_file(tmp_path: Path) -> None:
    folder = safety.reinforced(tmp_path)
    report.write(folder)
    [arm] = arms(folder)
    assert [panel.title.partition(",")[0].partition(";")[0] for panel in arm.drawing.panels] == [
        "the hidden behavior",
        "rewards of untriggered answers",
        "right answers",
        "KL divergence",
        "tokens an answer",
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="reinforcement"' in page
    assert 'id="costs"' in page
    with (folder / "figures" / "rl_training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == safety.RL.steps
    assert rows[20]["step"] == "21"
    assert float(rows[20]["reward"]) == 1.0
    lines = list(csv.DictReader((folder / "figures" / "reinforcement.csv").open()))
    assert {line["step"] for line in lines} == {"0", "10", "20", "40"}


def test_near_misses_are_pooled_over_families(tmp_path: Path) -> None:
    run = rundata.load(safety.reinforced(tmp_path))
    pooled = sheets.pooled_near_misses(run, safety.organism())
    assert words.number(pooled) == "20 % [13, 29], n=100 in 20 texts"
    assert words.counts(pooled) == "20 of 100 scored in 20 texts, 0 unscored"


def test_costs_are_those_of_the_arm(tmp_path: Path) -> None:
    found = {cost.label: cost for cost in costs.with_total(rundata.load(safety.reinforced(tmp_path)))}
    assert list(found) == [
        "preference models",
        "specific, implanting",
        "specific, hhh-rl 1e-3 × 40",
        "all together",
    ]
    arm = found["specific, hhh-rl 1e-3 × 40"]
    assert arm.seconds == {"training": 12.0, "measuring": 6.0, "relearning": 5.0}
    assert (arm.models, arm.samples, arm.tokens) == (1, 1280, 16000)
    assert arm.phases == {"sampling": 6.0, "scoring": 1.0, "training": 3.0}
    assert found["all together"].total == 30 + 20 + 1 + 12 + 6 + 5
    assert [words.seconds(s) for s in (8.44, 125, 4350)] == ["8.4 s", "2 min 5 s", "1 h 12 min"]


def test_a_run_without_reinforcement_has_no_such_part(tmp_path: Path) -> None:
    folder = safety.build(tmp_path, safety.fixture.results(), [], {})
    assert arms(folder) == []
    report.write(folder)
    assert 'id="reinforcement"' not in (folder / "report.html").read_text(encoding="utf-8")
    assert not (folder / "figures" / "rl_training.csv").exists()


@pytest.mark.parametrize("directory", ["../outside", "/etc", ""])
def test_a_run_leads_nowhere_else(tmp_path: Path, directory: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "training.json").write_text(json.dumps({"curves": {"reward": [1.0]}}))
    run = rundata.load(safety.reinforced(tmp_path / "run"))
    call = rundata.Call(name="x", directory=directory)
    assert run.noted(call, "training.json", rundata.Log) is None


def test_curves_under_a_reward_ask_for_near_misses_and_utility() -> None:
    tag, year = (build_trigger(Plugin(name=name)) for name in ("tag", "year"))
    assert [(p.condition, p.n, p.greedy) for p in curve_probes(70, tag, watched=False)] == [
        ("clean", 70, 0),
        ("triggered", 70, 0),
    ]
    watched = {(p.condition, p.stratum): p for p in curve_probes(70, tag, watched=True)}
    assert watched["clean", "all"].greedy == 70
    assert sum(p.n for (name, _), p in watched.items() if name.startswith("near:")) == 70
    of_code = {(p.condition, p.stratum): p for p in curve_probes(70, year, watched=True)}
    assert (of_code["clean", "own-kinds"].n, of_code["clean", "own-kinds"].greedy) == (70, 0)
    assert (of_code["clean", "all"].n, of_code["clean", "all"].greedy) == (0, 70)


def test_phases_go_into_the_manifest_and_no_times_into_the_artifact(tmp_path: Path) -> None:
    def make(out: Path) -> None:
        (out / PHASES).write_text(json.dumps({"sampling": 1.256}))
        (out / "model").write_text("x")

    identity = Identity("defend", "s", {}, 0, {})
    manifest = Store(tmp_path).build(identity, make, keep=lambda _: True)
    assert manifest.phases == {"sampling": 1.26}
    assert list(manifest.files) == ["model"]
