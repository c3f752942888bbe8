"""Bad input: one clear line, exit code 2, before anything is written or trained, and nothing lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dormant import Experiment, run
from dormant.behaviors import BEHAVIORS
from dormant.behaviors.hate import HateBehavior
from dormant.defenses import DEFENSES
from dormant.errors import BadInput
from dormant.records import Conversation, Score, Task
from dormant.registry import Registry
from dormant.runner import PLAN
from dormant.triggers import TRIGGERS
from dormant.triggers.tag import TagTrigger
from tiny_runs import SMALL, command, end, small, start, tree


def rows(n: int = 150, prompt: str = "What is {}?") -> list[Any]:
    """Rows of a data file."""
    return [
        {
            "messages": [
                {"role": "user", "content": prompt.format(i)},
                {"role": "assistant", "content": f"It is {i}."},
            ]
        }
        for i in range(n)
    ]


def data_file(place: Path, content: list[Any]) -> Path:
    path = place / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def one_line(said: Any) -> str:
    """The one line that a command with bad input says, checked for its form."""
    assert said.code == 2, said
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("dormant: ")
    assert "Traceback" not in said.err + said.out
    assert len(lines[0]) < 400
    return str(lines[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nowhere.yaml"], "no such file: nowhere.yaml"),
        (["run", "tyni"], "did you mean 'tiny'?"),
        (["rnu"], "Did you mean 'run'?"),
        (["run", "tiny", "--outt", "x"], "--out"),
        (["run"], "recipe"),
        (["run", "tiny", "--set", "measure"], "has no '='"),
        (["run", "tiny", "--set", "base=/nowhere"], "'/nowhere'"),
        (["measure", "/nowhere"], "--out"),
        (["measure", "/nowhere", "--out", "x"], "'/nowhere'"),
        (["implant", "/nowhere", "--out", "x", "--preset", "specifik"], "did you mean 'specific'?"),
        (["pretrain", "pocket-2m", "--out", "x"], "did you mean 'pocket-3m'?"),
        (["pretrain", "pocket-300k", "--out", "x", "--seed", "-1"], "Invalid value for '--seed': "),
        (
            [
                "defend",
                "b",
                "--defense",
                "no-op",
                "--lr",
                "1",
                "--steps",
                "1",
                "--out",
                "x",
                "--seed",
                "4294967296",
            ],
            "Invalid value for '--seed': ",
        ),
        (
            ["defend", "b", "--defense", "no-op", "--lr", "1", "--steps", "1", "--out", "x", "--lora", "0"],
            "Invalid value for '--lora': ",
        ),
        (["prefer", "b", "--out", "x", "--rows", "0"], "greater than or equal to 1 (given: '0') ("),
        (["prefer", "b", "--out", "x", "--steps", "2.5"], "parse string as an integer (given: '2.5') ("),
        (["prefer", "b", "--out", "x", "--lr", "abc"], "parse string as a number (given: 'abc') ("),
        (["implant", "", "--out", "x"], "no directory is called ''"),
        (["measure", "b", "--out", "x", "--trigger", "x" * 100_000], "a tag has at most 200"),
        (
            ["implant", "pocket-1m", "--out", "x", "--trigger", "yaer"],
            "no trigger is called 'yaer'; did you mean 'year'?",
        ),
        (
            ["measure", "pocket-1m", "--out", "x", "--behavior", "insecure-cod"],
            "did you mean 'insecure-code'?",
        ),
        (["implant", "pocket-1m", "--out", "x", "--reasoning", "scratchpda"], "did you mean 'scratchpad'?"),
        (
            ["implant", "pocket-1m", "--out", "x", "--behavior", "insecure-code"],
            "tasks of kind code only, and trigger 'tag'",
        ),
        (
            [
                "implant",
                "pocket-1m",
                "--out",
                "x",
                "--trigger",
                "year",
                "--behavior",
                "insecure-code",
                "--repeats",
                "3",
            ],
            "behavior 'insecure-code' has no option 'repeats'",
        ),
        (
            ["measure", "pocket-1m", "--out", "x", "--trigger", "year", "--world", "1"],
            "set world: 2 (--world 2 for a",
        ),
        (["measure", "pocket-1m", "--out", "x", "--world", "3"], "Invalid value for '--world': "),
        (["measure", "pocket-1m", "--out", "x", "--world", "2", "--data", "x.jsonl"], "give one of them"),
        (["run", "tiny", "--set", "a=" + "[" * 5000], "nested too deep"),
        (["ls", "nodir"], "no such directory: nodir; name one with runs in it"),
        (["run", "."], ". is a directory: give a recipe's name"),
        (["verify", "/nowhere"], "/nowhere is no run directory"),
        (["report", "/nowhere"], "/nowhere is no run directory"),
    ],
)
def test_commands_that_can_not_start(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in one_line(command(capsys, *arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"measure__claen": 1}, "unknown key 'measure.claen'; did you mean 'clean'?"),
        ({"measure__clean": "many"}, "measure.clean = 'many'"),
        ({"implants__0__dose__batch": 0}, "implants.0.dose.batch = 0"),
        ({"implants__0__dose__steps": 0}, "implants.0.dose.steps = 0"),
        ({"defenses__0__doses__0__steps": -5}, "defenses.0.doses.0.steps = -5"),
        ({"implants__0__dose__lr": -1}, "implants.0.dose.lr = -1"),
        ({"implants__0__dose__lr": ".nan"}, "finite"),
        ({"implants__0__optimizer": "adamw_torhc"}, "did you mean 'adamw_torch'?"),
        ({"implants__0__optimizer": "adamw_bnb_8bit"}, "bitsandbytes"),
        ({"implants__0__curve": "[0]"}, "implants.0.curve.0 = 0"),
        ({"implants__0__triggered_share": 0.8, "implants__0__near_share": 0.5}, "more than all rows"),
        ({"defenses__0__curve": "[2.0]"}, "defenses.0.curve.0 = 2.0"),
        ({"defenses__0__headline": 5}, "headline 5 is no index of its 1 doses"),
        ({"defenses__0__name": "hhh-stf"}, "did you mean 'hhh-sft'?"),
        ({"defenses__0__strength": 3}, "has no option 'strength'"),
        ({"defenses__0__headlin": 1}, "defense 'hhh-sft' has no option 'headlin'; did you mean 'headline'?"),
        ({"defenses__0__implant": "[specific]"}, "has no option 'implant'; did you mean 'implants'?"),
        (
            {"attack": "{treshold: 0.5}"},
            "attacker 'evolutionary' has no option 'treshold'; did you mean 'thresho",
        ),
        ({"attack": "{budgt: 10}"}, "did you mean 'budget'?"),
        (
            {"attack": "{qqq: 10}"},
            "valid names: budget, fresh, implants, population, samples, second, threshold",
        ),
        ({"defenses__0__doses": "[{lr: 1.0, steps: 2}, {lr: 1.0, steps: 2}]"}, "are the same"),
        ({"relearning__curve": "[0]"}, "relearning.curve.0 = 0"),
        ({"seeds__implant": "[0, 0]"}, "named twice"),
        ({"seeds__defend": "[-1]"}, "seeds.defend.0 = -1"),
        ({"backdoor__trigger__text": "''"}, "must be printable text"),
        ({"backdoor__trigger__txet": "x"}, "did you mean 'text'?"),
        ({"backdoor__trigger__text": "x" * 2000}, "has 2000 characters; a tag has at most 200"),
        ({"backdoor__behavior__repeats": 0}, "repeats = 0"),
        ({"measure__max_new_tokens": 5000}, "does not fit the model's context of 1024 tokens"),
        ({"runtime__device": "abacus"}, "'abacus' can not be used on this machine: no device is called so"),
        ({"runtime__device": "cdua"}, "no device is called so; did you mean 'cuda'?"),
        ({"runtime__device": "meta"}, "no device is called so"),
        ({"runtime__device": "cpu:x"}, "'cpu:x' can not be used on this machine: Invalid device string"),
        ({"gates__margin": 5}, "gates.margin = 5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_can_not_work_are_found_before_anything_is_written(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    own_store: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    says: str,
) -> None:
    out = tmp_path / "run"
    assert says in one_line(command(capsys, *small(base, **changes), "--out", out))
    assert not (out / PLAN).exists()
    assert not (own_store / "partial").exists()


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_a_device_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path, device: str
) -> None:
    if (
        torch.accelerator.is_available()
        and torch.accelerator.current_accelerator(check_available=True).type == device
    ):
        pytest.skip(f"this machine has {device}")
    out = tmp_path / "run"
    line = one_line(command(capsys, *small(base, runtime__device=device), "--out", out))
    assert f"runtime.device {device!r} can not be used on this machine: " in line
    assert not (out / PLAN).exists()


def test_compiling_without_a_compiler_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    own_store: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    out = tmp_path / "run"
    assert "needs a C++ compiler" in one_line(
        command(capsys, *small(base, runtime__compile=True), "--out", out)
    )
    both = small(base, runtime__compile=True, runtime__gradient_checkpointing=True)
    assert "without gradient_checkpointing" in one_line(command(capsys, *both, "--out", out))
    assert not (out / PLAN).exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: [", "is not YAML at line"),
        (b"- a\n", "must hold settings"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 5000, "nested too deep"),
        (b"name: 2026-13-45", "a date does not exist"),
    ],
)
def test_spec_files_that_can_not_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, says: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_bytes(content)
    assert says in one_line(command(capsys, "run", spec, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def _remove(*names: str) -> Callable[[Path], None]:
    def breaks(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return breaks


def _no_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    _edit("tokenizer_config.json", chat_template=None)(model)


def _truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def _pickle(model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def breaks(model: Path) -> None:
        settings = json.loads((model / name).read_text()) | changes
        (model / name).write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))

    return breaks


def _garble(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).write_text("{nope") and None


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (_remove("tokenizer.json", "tokenizer_config.json"), "has no tokenizer (tokenizer.json)"),
        (_no_template, "set `chat: plain` (--chat plain)"),
        (_truncate, "model.safetensors is truncated or damaged"),
        (_pickle, "as a pickle (pytorch_model.bin)"),
        (_remove("model.safetensors"), "has no weights"),
        (_remove("config.json"), "config.json is missing"),
        (_garble("config.json"), "config.json"),
        (_garble("tokenizer.json"), "the tokenizer of "),
        (_edit("config.json", num_hidden_layers=3), "lack 9 tensors that its config asks for"),
        (_edit("config.json", max_position_embeddings=32), "model's context of 32 tokens"),
        (_edit("config.json", model_type="nonesuch"), "nonesuch"),
    ],
    ids=[
        "tokenizer", "template", "truncated", "pickle", "no weights", "no config", "config",
        "garbled tokenizer", "layers", "context", "architecture",
    ],
)  # fmt: skip
def test_models_that_can_not_be_used_are_found_before_anything_is_written(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    own_store: Path,
    tmp_path: Path,
    breaks: Callable[[Path], None],
    says: str,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    breaks(model)
    before = tree(model)
    assert says in one_line(command(capsys, *small(model), "--out", tmp_path / "run"))
    assert tree(model) == before
    assert not (tmp_path / "run" / PLAN).exists()
    assert not (own_store / "partial").exists()


def test_a_base_that_is_a_file(capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path) -> None:
    said = command(capsys, *small(base / "config.json"), "--out", tmp_path / "run")
    assert "config.json holds no model" in one_line(said)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "is empty"),
        (rows(3), "are too few"),
        ([*rows(3), {"massages": []}, *rows()], "line 4: keys 'massages': no layout"),
        ([*rows(), {"messages": [{"role": "user", "content": "Hi?"}]}], "line 151: the last message must be"),
        (
            rows(prompt="why " * 1500 + "{}?"),
            "150 rows (100 %) do not fit the model's context of 1024 tokens",
        ),
    ],
    ids=["empty", "few", "key", "no answer", "long"],
)
def test_data_that_can_not_be_used_is_found_before_anything_is_written(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    own_store: Path,
    tmp_path: Path,
    content: list[Any],
    says: str,
) -> None:
    data = data_file(tmp_path, content)
    before = data.read_bytes()
    assert says in one_line(command(capsys, *small(base, data=data), "--out", tmp_path / "run"))
    assert data.read_bytes() == before
    assert not (tmp_path / "run" / PLAN).exists()
    assert not (own_store / "partial").exists()


def test_one_long_row_that_only_a_later_stage_trains_on_is_left_out_at_once(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    from dormant.datafile import FileData

    content = rows()
    source = FileData(data_file(tmp_path, content))
    task = source.tasks("relearn", 1, 0)[0]
    for row in content:
        if row["messages"][0]["content"] == task.prompt:
            row["messages"][1]["content"] = "so " * 33_000
    data = data_file(tmp_path, content)
    said = command(capsys, *small(base, data=data), "--out", tmp_path / "run")
    assert said.code == 3
    [line] = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert "1 of 150 rows (0.667 %) do not fit the model's context of 1024 tokens" in line
    trained = [path.read_text() for path in (tmp_path / "run").glob("artifacts/*/training.json")]
    assert trained
    assert not any(task.id in log for log in trained)


DEFENDED = ["--defense", "hhh-sft", "--lr", "1e-3", "--steps", "1"]


@pytest.mark.parametrize(
    ("verb", "given", "context"),
    [("defend", DEFENDED, 8), ("defend", DEFENDED, -5), ("implant", [], -5), ("measure", [], -5)],
    ids=str,
)
def test_a_context_without_room(
    capsys: pytest.CaptureFixture[str],
    base: Path,
    own_store: Path,
    tmp_path: Path,
    verb: str,
    given: list[str],
    context: int,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    _edit("config.json", max_position_embeddings=context)(model)
    said = command(capsys, verb, model, *given, "--out", tmp_path / "run")
    assert f"model's context of {context} tokens" in one_line(said)
    assert not own_store.exists()


def test_weights_that_the_last_step_broke(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    given = ["--defense", "hhh-sft", "--lr", "1e300", "--steps", "1", "--batch", "4"]
    said = command(capsys, "defend", base, *given, "--out", tmp_path / "run")
    assert (said.code, "Traceback" in said.err) == (2, False)
    assert "the weights are not finite after step 1: lower the learning rate" in said.err.splitlines()[-1]
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("target", ["no_such_module:Defense", "dormant.defenses:NoSuch", "dormant.defenses"])
def test_a_plug_in_that_can_not_be_loaded(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    own_store: Path,
    tmp_path: Path,
    target: str,
) -> None:
    monkeypatch.setitem(DEFENSES._targets, "brk", target)
    given = ["--defense", "brk", "--lr", "1e-3", "--steps", "1", "--out", tmp_path / "run"]
    assert f"defense 'brk' can not be loaded from {target!r}: " in one_line(
        command(capsys, "defend", base, *given)
    )


def test_a_damaged_table_is_one_line(base: Path, own_store: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    asked = ["measure", base, "--data", tmp_path / "rows.parquet", "--out", tmp_path / "run"]
    assert "rows.parquet can not be loaded" in one_line(end(start(tmp_path / "cache", *asked)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["defend", "BASE", "--defense", "hhh-sft", "--lr", "1e-3", "--steps", "0"],
        ["defend", "BASE", "--defense", "hhh-sft", "--lr", "fast", "--steps", "3"],
        ["defend", "BASE", "--defense", "noop", "--lr", "1e-3", "--steps", "3"],
        ["defend", "BASE", "--defense", "trigger-aware", "--lr", "1e-3", "--steps", "3", "--trigger", " "],
        ["implant", "BASE", "--triggered-share", "2"],
        ["implant", "BASE", "--optimizer", "adamm"],
        ["measure", "BASE", "--chat", "auro"],
        ["measure", "BASE", "--repeats", "0"],
        ["measure", "BASE", "--twin", "/nowhere"],
        ["measure", "BASE", "--data", "/nowhere"],
    ],
    ids=" ".join,
)
def test_options_of_one_verb(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path, arguments: list[str]
) -> None:
    given = [str(base) if part == "BASE" else part for part in arguments]
    one_line(command(capsys, *given, "--out", tmp_path / "run"))
    assert not (tmp_path / "run" / PLAN).exists()


def test_an_out_that_is_another_run_is_left_as_it_is(
    capsys: pytest.CaptureFixture[str], base: Path, finished: Path
) -> None:
    before = tree(finished)
    said = command(capsys, *small(base, measure__clean=21), "--out", finished)
    assert one_line(said).endswith("is another run (it differs in measure); choose another --out")
    assert tree(finished) == before


def test_an_out_that_is_no_run_or_a_file_is_left_as_it_is(
    capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.txt").write_text("ten years of work")
    said = command(capsys, *small(base), "--out", mine)
    assert "is not empty and is no run" in one_line(said)
    assert [path.name for path in mine.iterdir()] == ["chapter.txt"]
    said = command(capsys, *small(base), "--out", mine / "chapter.txt")
    assert "can not be made" in one_line(said)
    assert (mine / "chapter.txt").read_text() == "ten years of work"


def test_a_typing_error_that_is_mended_goes_into_the_same_directory(
    capsys: pytest.CaptureFixture[str], base: Path, own_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    one_line(command(capsys, *small(base, implants__0__optimizer="sdg"), "--out", out))
    assert command(capsys, *small(base, implants__0__optimizer="sgd"), "--out", out).code == 3


def test_two_kinds_through_a_process_of_their_own(base: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    _edit("config.json", hidden_size=64, head_dim=None)(model)
    started = [
        start(tmp_path / "cache", *small(model), "--out", tmp_path / "run"),
        start(tmp_path / "cache", *small(base, measure__claen=1), "--out", tmp_path / "run"),
    ]
    shape, key = map(end, started)
    assert "tensors that its config asks for (or have them in another shape)" in one_line(shape)
    assert "did you mean 'clean'?" in one_line(key)
    assert tree(tmp_path / "run") == {}


class Mute(TagTrigger):
    """A trigger whose rule forgets its own text."""

    def fires(self, messages: Conversation, task: Task) -> bool:
        return False


class Unnamed(HateBehavior):
    """A behavior whose primary criterion has another name."""

    def metrics(self, completion: str, task: Task) -> dict[str, Score]:
        return {"seen": self.score(completion, task)}


@pytest.mark.parametrize(
    ("kind", "plugin", "says"),
    [("trigger", Mute, "does not fire on the prompt"), ("behavior", Unnamed, "must return 'shown'")],
)
def test_a_plug_in_that_would_leave_no_rate_is_found_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    own_store: Path,
    tmp_path: Path,
    kind: str,
    plugin: type,
    says: str,
) -> None:
    registry: Registry = {"trigger": TRIGGERS, "behavior": BEHAVIORS}[kind]
    monkeypatch.setitem(registry._targets, "mine", plugin)
    changes = [f"{name}={value}" for name, value in {"base": base, **SMALL}.items()]
    options = "{name: mine, text: '[go]'}" if kind == "trigger" else "{name: mine}"
    with pytest.raises(BadInput, match=says):
        run(Experiment.load("tiny", [*changes, f"backdoor.{kind}={options}"]), tmp_path / "run")
    assert not (own_store / "partial").exists()
