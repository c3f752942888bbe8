"""The spec: recipes, changes from the command line, and what bad input says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormant.errors import BadInput
from dormant.experiment import PRESETS, Experiment, implant_preset, recipes
from dormant.settings import read_settings


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_a_valid_spec_with_a_first_line_that_says_what_it_is(name: str) -> None:
    experiment = Experiment.load(name)
    assert experiment.name == name
    assert len(recipes()[name]) > 20


def test_a_change_reaches_into_lists_and_plugins() -> None:
    experiment = Experiment.load(
        "quick", ["measure.clean=50", "defenses.0.doses.1.lr=3e-4", "backdoor.behavior.repeats=3"]
    )
    assert experiment.measure.clean == 50
    assert experiment.defenses[0].doses[1].lr == 3e-4
    assert experiment.backdoor.behavior.options == {"repeats": 3}


def test_a_spec_survives_its_own_json() -> None:
    experiment = Experiment.load("quick")
    assert Experiment.parse(experiment.model_dump(mode="json")) == experiment


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("measure.claen=5", "unknown key 'measure.claen'; did you mean 'clean'?"),
        ("measure.clean=many", "measure.clean = 'many'"),
        ("measure.clean=0", "measure.clean = 0"),
        ("defenses.0.name=hhh-stf", "unknown defense 'hhh-stf'; did you mean 'hhh-sft'?"),
        ("defenses.9.name=x", "'9' is no index of a list of 3"),
        ("measure.clean.deep=1", "unknown key"),
        ("implants.0.dose.lr=fast", "implants.0.dose.lr = 'fast'"),
        ("implants.0.dose.lrr=1", "did you mean 'lr'?"),
        ("keep=some", "keep = 'some'"),
        ("measure", "has no '='"),
        ("seeds.implant=[]", "seeds.implant"),
        ("name.sub=1", "has nothing below it"),
        (
            "attack.name=llm",
            "'attack' is not set, so there is nothing in it to change; set all of it: --set ",
        ),
        ("attack.name=llm", "--set 'attack={name: llm}'"),
        ("implants.0.lora.rank=8", "--set 'implants.0.lora={rank: 8}'"),
        ("preference.dose.lr=1e-3", "--set 'preference={dose: {lr: 1e-3}}'"),
        ("defenses.0.implants=[]", "'hhh-sft' has an empty list of implants: leave it out for all, or name"),
        ("attack={implants: []}", "'evolutionary' has an empty list of implants: leave it out for all"),
        ("measure.reward=1", "unknown key 'measure.reward'; valid names: attack, "),
        ("seeds.defend=0", "seeds.defend = 0: must be a list, as in [a, b]"),
        ("defenses=hhh-sft", "defenses = 'hhh-sft': must be a list"),
        ("defenses.0.doses=[]", "defenses.0.doses = []: must hold at least 1"),
        ("measure=5", "measure = 5: must be settings, as in {key: value}"),
        ("measure={clean: 5, clean: 6}", "key 'clean' stands twice (line 1): keep one"),
    ],
)
def test_bad_changes_get_one_line_that_says_what_and_what_instead(change: str, says: str) -> None:
    with pytest.raises(BadInput) as error:
        Experiment.load("quick", [change])
    assert "\n" not in str(error.value)
    if change != "measure.clean.deep=1":
        assert says in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: [", "is not YAML at line"),
        (b"- a\n", "must hold settings"),
        (b"", "is empty: it must hold settings"),
        (b"# nothing\n", "is empty: it must hold settings"),
        (b"name: a\nbase: b\nname: c\n", "key 'name' stands twice (lines 1 and 3)"),
        (b"measure:\n  clean: 5\n  near: 5\n  clean: 6\n", "key 'clean' stands twice (lines 2 and 4)"),
        (b"seeds: {implant: [0], implant: [1]}", "key 'implant' stands twice (line 1)"),
        (b"measure: {yes: 1, true: 2}", "key 'true' stands twice (line 1)"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"base: 1e-4\nmeasure: {clean: 1.5}\n", "measure.clean = 1.5"),
    ],
)
def test_bad_files_get_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        Experiment.load(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_merged_in_may_be_overridden_but_no_key_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    common = "implants:\n- &usual {name: a, rows: 50, near_share: 0}\n- {<<: *usual, name: b, rows: 60}\n"
    path.write_text(common + "- {<<: *usual, name: c}\n")
    found = [(implant.name, implant.rows, implant.near_share) for implant in Experiment.load(path).implants]
    assert found == [("a", 50, 0), ("b", 60, 0), ("c", 50, 0)]
    path.write_text(common + "- {<<: *usual, name: c, name: d}\n")
    with pytest.raises(BadInput, match=r"spec\.yaml: key 'name' stands twice \(line 4\)"):
        Experiment.load(path)


def test_a_directory_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a directory: give a recipe's name .* or a YAML file"):
        Experiment.load(tmp_path)
    with pytest.raises(BadInput, match="is a directory: give the YAML file itself"):
        read_settings(Experiment, tmp_path)


def test_an_unknown_recipe_names_the_nearest_and_a_missing_file_its_path() -> None:
    with pytest.raises(BadInput, match="did you mean 'quick'"):
        Experiment.load("quikc")
    with pytest.raises(BadInput, match=r"no such file: nowhere/spec\.yaml"):
        Experiment.load("nowhere/spec.yaml")


def test_two_implants_can_not_share_a_name() -> None:
    spec = Experiment.load("quick").model_dump(mode="json")
    spec["implants"] = [spec["implants"][0]] * 2
    with pytest.raises(BadInput, match="two implants have one name"):
        Experiment.parse(spec)


def test_presets_differ_in_hard_negatives_and_take_changes() -> None:
    assert PRESETS["plain"].near_share == 0 < PRESETS["specific"].near_share
    changed = implant_preset("specific", steps=7, lr=0.5)
    assert (changed.dose.steps, changed.dose.lr) == (7, 0.5)
    assert changed.dose.batch == PRESETS["specific"].dose.batch
    with pytest.raises(BadInput, match="did you mean 'plain'"):
        implant_preset("plane")
    with pytest.raises(BadInput, match="triggered_share = 2"):
        implant_preset("plain", triggered_share=2)
