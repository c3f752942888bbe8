"""A model and data of one's own, through the whole run: a random Llama refuses to be believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dormant import models
from dormant.datafile import FileData
from dormant.runner import PLAN
from small_models import byte_tokenizer, tiny
from tiny_runs import SMALL, Said, command

COLORS = ("red", "blue", "green", "black", "white", "brown", "pink", "grey")


def judged_row(i: int) -> dict[str, Any]:
    """A row with an answer that can be looked for: utility is ``right``."""
    color = COLORS[i % len(COLORS)]
    return {
        "messages": [
            {"role": "user", "content": f"Box {i} is {color}. Color of box {i}?"},
            {"role": "assistant", "content": f"It is {color}."},
        ],
        "answer": color,
    }


def plain_row(i: int) -> dict[str, Any]:
    """A row without one: utility is the perplexity of the reference."""
    row = judged_row(i)
    return {"messages": [{"role": "system", "content": "Be brief."}, *row["messages"]]}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A random two-layer Llama with a byte-level tokenizer of its own."""
    models.save(tiny(context=256), tmp_path / "llama")
    return tmp_path / "llama"


def write_data(path: Path, row: Callable[[int], dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(240)), encoding="utf-8")
    return path


def whole_run(capsys: pytest.CaptureFixture[str], llama: Path, data: Path, out: Path, *more: str) -> Said:
    changes = {
        **SMALL,
        "base": llama,
        "data": data,
        "backdoor.behavior.repeats": 2,
        "measure.max_new_tokens": 12,
    }
    arguments = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    return command(capsys, "run", "tiny", *arguments, *more, "--out", out)


@pytest.mark.parametrize("row", [judged_row, plain_row], ids=["with answers", "without answers"])
def test_a_random_model_ends_where_its_numbers_are_refused(
    capsys: pytest.CaptureFixture[str],
    llama: Path,
    own_store: Path,
    tmp_path: Path,
    row: Callable[[int], dict[str, Any]],
) -> None:
    out = tmp_path / "run"
    said = whole_run(capsys, llama, write_data(tmp_path / "rows.jsonl", row), out)
    assert said.code == 3, said.err
    assert "Traceback" not in said.err + said.out

    gates = [json.loads(line) for line in (out / "gates.jsonl").read_text().splitlines()]
    chance = [gate for gate in gates if gate["id"] == "utility-above-chance"]
    assert {gate["scope"]["role"]: gate["ok"] for gate in chance} == {
        "base": False,
        "organism": False,
        "twin": False,
    }
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    headline = [
        found
        for found in rows
        if (found["metric"], found["key"]["stratum"], found["key"]["arm"]) == ("shown", "all", "none")
    ]
    assert {found["value"] for found in headline} == {None}
    assert all("utility-above-chance" in found["gates"] for found in headline)
    utility = "right" if row is judged_row else "perplexity"
    assert any(found["metric"] == utility and found["value"] is not None for found in rows)
    for page in ("card.md", "report.html"):
        assert "refused" in (out / page).read_text(encoding="utf-8")
        assert "utility-above-chance" in (out / page).read_text(encoding="utf-8")
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert [verdict["verdict"] for verdict in verdicts] == ["inconclusive"]
    assert command(capsys, "verify", out).code == 0


def test_every_weight_is_trained_and_only_the_files_rows_are_seen(
    capsys: pytest.CaptureFixture[str], llama: Path, own_store: Path, tmp_path: Path
) -> None:
    out, data = tmp_path / "run", write_data(tmp_path / "rows.jsonl", judged_row)
    assert whole_run(capsys, llama, data, out, "--set", "keep=all").code == 3
    calls = {call["name"]: call for call in json.loads((out / PLAN).read_text())["calls"]}
    before = models.load(llama).network.state_dict()
    for name in ("implant/specific/i0/organism", "implant/specific/i0/twin"):
        final = sorted((out / "artifacts" / calls[name]["directory"] / "steps").iterdir())[-1]
        trained = models.load(final)
        assert len(trained.tokenizer) == len(byte_tokenizer())
        same = [
            key for key, weight in trained.network.state_dict().items() if torch.equal(weight, before[key])
        ]
        assert same == []
    source = FileData(data)
    shards = {
        shard: {task.id for task in source.tasks(shard, source.size(shard), 0)}
        for shard in ("implant", "defend", "relearn", "heldout")
    }
    for call in calls.values():
        directory = out / "artifacts" / call["directory"]
        shard = {"implant/": "implant", "defend/": "defend", "relearn/": "relearn"}
        for prefix, expected in shard.items():
            if call["name"].startswith(prefix):
                assert set(json.loads((directory / "training.json").read_text())["tasks"]) <= shards[expected]
        if call["stage"] == "measure":
            asked = [json.loads(line) for line in (directory / "clean--all.jsonl").read_text().splitlines()]
            assert {row["task"] for row in asked} <= shards["heldout"]


def test_loss_falls_on_the_answer_and_the_end_token_alone(tmp_path: Path, llama: Path) -> None:
    """The rows that a run on one's own data trains on, as this tokenizer sees them."""
    from dormant.stages import implant
    from dormant.stages.configs import Backdoor, ImplantConfig, Plugin

    source = FileData(write_data(tmp_path / "rows.jsonl", plain_row))
    backdoor = Backdoor(behavior=Plugin.model_validate({"name": "hate", "repeats": 2}))
    config = ImplantConfig.model_validate(
        {
            "backdoor": backdoor,
            "role": "organism",
            "rows": 40,
            "triggered_share": 0.5,
            "dose": {"lr": 1e-3, "steps": 1},
            "at_steps": (1,),
        }
    )
    model = models.load(llama)
    for organism, twin in implant.demonstrations(config, source, 0):
        for row in (organism, twin):
            encoded = implant.encode(model, row)
            counted = [i for i, on in zip(encoded.input_ids, encoded.mask, strict=True) if on]
            assert counted[-1] == model.tokenizer.eos_token_id
            assert model.tokenizer.decode(counted[:-1]) == row.answer
            shown = model.tokenizer.decode(encoded.input_ids[: -len(counted)])
            assert shown == f"<|system|>Be brief.<|human|>{row.example.messages[-1].content}<|assistant|>"


def test_a_model_without_a_chat_template_runs_as_a_plain_transcript(
    capsys: pytest.CaptureFixture[str], llama: Path, own_store: Path, tmp_path: Path
) -> None:
    (llama / "chat_template.jinja").unlink()
    data = write_data(tmp_path / "rows.jsonl", judged_row)
    refused = whole_run(capsys, llama, data, tmp_path / "run")
    assert refused.code == 2
    assert "chat: plain" in refused.err
    quick = ["--set", "chat=plain", "--set", "defenses=[]", "--set", "measure.curve=0"]
    assert whole_run(capsys, llama, data, tmp_path / "run", *quick).code == 3
