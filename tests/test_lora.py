"""Adapters: alone they are the merged model, merged and continued differ, and one goes onto its own base only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dormant import adapters, models
from dormant.adapters import Shape
from dormant.errors import BadInput
from dormant.runner import PLAN
from dormant.training import sft
from small_models import tiny
from test_bad_input import one_line
from test_training import DOSE, Killed, assert_same, kill_at, some_rows, weights
from tiny_runs import command, small


def saved(place: Path, seed: int = 0, hidden: int = 32) -> Path:
    models.save(tiny(seed, hidden=hidden), place)
    return place


def adapted(base: Path, seed: int = 0, dropout: float = 0.0) -> models.Model:
    return adapters.attach(models.load(base), Shape(rank=4, alpha=8, dropout=dropout), seed=seed)


def logits(model: models.Model) -> torch.Tensor:
    ids = torch.tensor([row.input_ids[:5] for row in some_rows(6, 3)])
    with torch.no_grad():
        return model.network(ids).logits


def test_an_adapter_alone_gives_the_merged_models_logits(tmp_path):
    base = saved(tmp_path / "base")
    model = adapted(base)
    assert torch.equal(logits(model), logits(models.load(base)))  # at first it changes nothing
    sft.train(model, some_rows(), DOSE, seed=0)
    models.save(adapters.merged(model), tmp_path / "merged")
    adapters.save(model, tmp_path / "adapter")
    merged = logits(models.load(tmp_path / "merged"))
    alone = logits(adapters.continued(models.load(base), tmp_path / "adapter"))
    assert (merged - alone).abs().max() < 1e-5
    assert (merged - logits(models.load(base))).abs().max() > 1e-2
    assert torch.equal(alone, logits(model))


def test_only_the_adapter_is_trained_and_all_of_it(tmp_path):
    model = adapted(saved(tmp_path / "base"))
    before = weights(model)
    sft.train(model, some_rows(), DOSE, seed=0)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, before[name]) == ("lora_" not in name), name
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in before if "lora_" in name} == linear


def test_equal_adapters_give_equal_bytes_and_no_names(tmp_path):
    base = saved(tmp_path / "base")
    for name in ("a", "b"):
        adapters.save(adapted(base), tmp_path / name)
    first, second = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("a", "b"))
    assert first == second
    assert sorted(first) == ["adapter_config.json", "adapter_model.safetensors", "base.json"]
    assert str(tmp_path).encode() not in b"".join(first.values())
    assert any(not torch.equal(adapted(base).network.state_dict()[name], tensor)
               for name, tensor in adapted(base, seed=1).network.state_dict().items())  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_resuming_gives_the_same_bits(tmp_path, dropout):
    base = saved(tmp_path / "base")

    def attempt(resume_dir, progress=None):
        model = adapted(base, dropout=dropout)
        sft.train(
            model, some_rows(), DOSE, seed=1, resume_dir=resume_dir, resume_every=4, progress=progress
        )  # fmt: skip
        return weights(adapters.merged(model))

    whole = attempt(None)
    with pytest.raises(Killed):
        attempt(tmp_path / "resume", kill_at(6))
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["checkpoint-4"]
    assert_same(whole, attempt(tmp_path / "resume"))


def test_merged_and_continued_differ(tmp_path):
    base = saved(tmp_path / "base")
    implant = adapted(base)
    sft.train(implant, some_rows(), DOSE, seed=0)
    adapters.save(implant, tmp_path / "adapter")
    models.save(adapters.merged(implant), tmp_path / "organism")
    merged = adapted(tmp_path / "organism", seed=5)
    going_on = adapters.continued(models.load(base), tmp_path / "adapter")
    assert (logits(merged) - logits(going_on)).abs().max() < 1e-5  # one model, trained in two ways
    for model in (merged, going_on):
        sft.train(model, some_rows(seed=9), DOSE, seed=0)
    assert (logits(merged) - logits(going_on)).abs().max() > 1e-3


def test_an_adapter_goes_onto_its_own_base_only(tmp_path):
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other", seed=1)
    wide = saved(tmp_path / "wide", hidden=64)
    adapters.save(adapted(base), tmp_path / "adapter")
    with pytest.raises(BadInput, match="was made on other weights than"):
        adapters.continued(models.load(other), tmp_path / "adapter")
    (tmp_path / "adapter" / "base.json").unlink()  # as other tools leave it: only shapes tell
    with pytest.raises(BadInput, match=r"does not fit .*size mismatch") as error:
        adapters.continued(models.load(wide), tmp_path / "adapter")
    assert "\n" not in str(error.value)
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(BadInput, match="no adapter weights as safetensors"):
        adapters.continued(models.load(base), tmp_path / "adapter")
    with pytest.raises(BadInput, match="holds no adapter"):
        adapters.continued(models.load(base), base)
    with pytest.raises(BadInput, match=r"does not fit the model: .*nonesuch"):
        adapters.attach(models.load(base), Shape(targets=("nonesuch",)), seed=0)


LORA = {"implants__0__lora": "{rank: 2, alpha: 4}", "keep": "all"}


def run_of(capsys: pytest.CaptureFixture[str], base: Path, out: Path, **changes: Any) -> dict[str, Path]:
    """A run through the command line: the directory of each of its calls."""
    said = command(capsys, *small(base, **{**LORA, **changes}), "--out", out)
    assert said.code == 3, said.err
    assert command(capsys, "verify", out).code == 0
    calls = json.loads((out / PLAN).read_text())["calls"]
    return {call["name"]: out / "artifacts" / call["directory"] for call in calls}


def loras(out: Path) -> set[tuple[str, str]]:
    rows = [json.loads(line)["key"] for line in (out / "results.jsonl").read_text().splitlines()]
    return {(key["arm"], key["lora"]) for key in rows}


@pytest.mark.parametrize("lora", [pytest.param("merged", marks=pytest.mark.slow), "continue"])
def test_a_run_with_adapters_says_so_in_every_key(capsys, base, own_store, tmp_path, lora):
    changes = {"defenses__0__lora": lora, "relearning__lora": "{rank: 2}", "defenses__0__doses__0__lr": 0.01}
    if lora == "merged":
        changes["defenses__0__adapter"] = "{rank: 3}"
    made = run_of(capsys, base, tmp_path / "run", **changes)
    assert {("none", "none"), ("implant", "none"), ("claim", lora)} == loras(tmp_path / "run") - {
        ("noop", lora)
    }
    implant = made["implant/specific/i0/organism"]
    alone = logits(adapters.continued(models.load(base), implant / "adapters" / "000006"))
    organism = logits(models.load(implant / "steps" / "000006"))
    assert (alone - organism).abs().max() < 1e-5
    defense = next(path for name, path in made.items() if name.startswith("defend/") and "organism" in name)
    # A new adapter is made on the organism; one that is continued, on the organism's base.
    root = base if lora == "continue" else implant / "steps" / "000006"
    defended = logits(models.load(defense / "steps" / "000004"))
    on_its_own = logits(adapters.continued(models.load(root), defense / "adapters" / "000004"))
    assert (defended - on_its_own).abs().max() < 1e-5
    assert (defended - organism).abs().max() > 1e-4
    rank = {"merged": 3, "continue": 2}[lora]
    settings = json.loads((defense / "adapters" / "000004" / "adapter_config.json").read_text())
    assert settings["r"] == rank


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"defenses__0__lora": "continue"}, "leaves no adapter to continue"),
        ({"defenses__0__lora": "contineu"}, "defenses.0.lora = 'contineu'"),
        ({"defenses__0__adapter": "{rank: 2}"}, "adapter is for lora: merged, not for lora: none"),
        ({"implants__0__lora": "{rank: 0}"}, "implants.0.lora.rank = 0"),
        ({"implants__0__lora": "{rnak: 2}"}, "unknown key 'implants.0.lora.rnak'; did you mean 'rank'?"),
        ({"implants__0__lora": "{targets: [qproj]}"}, "does not fit the model"),
        (
            {"defenses__0__lora": "merged", "defenses__0__adapter": "{targets: qproj}"},
            "does not fit the model",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_of_adapters_that_can_not_work(capsys, base, own_store, tmp_path, changes, says):
    out = tmp_path / "run"
    assert says in one_line(command(capsys, *small(base, **changes), "--out", out))
    assert not (out / PLAN).exists()


def test_the_verbs_take_adapters(capsys, base, own_store, tmp_path):
    given = ["--steps", "2", "--lr", "1e-2", "--batch", "4"]
    defend = ["defend", base, "--defense", "hhh-sft", *given]
    assert command(capsys, *defend, "--lora", 2, "--out", tmp_path / "one").code == 0
    [adapter] = (tmp_path / "one" / "artifacts").glob("*/adapters/000002")
    going_on = [*defend, "--adapter", adapter, "--out", tmp_path / "two"]
    assert command(capsys, *going_on).code == 0
    first, second = (logits(models.load(tmp_path / name / "model")) for name in ("one", "two"))
    assert (first - second).abs().max() > 1e-4
    other = saved(tmp_path / "other", seed=3)
    for arguments, says in (
        ([*defend, "--adapter", adapter, "--lora", "2"], "give one of them"),
        ([*defend, "--adapter", tmp_path / "nowhere"], "no such directory"),
        ([*defend, "--adapter", base], f"--adapter {base} holds no adapter: adapter_config.json is missing"),
        (
            [*defend, "--lora", "1000000000000"],
            "an adapter of lora.rank 1000000000000 can not be made on this machine: ",
        ),
        ([*defend, "--lora", "0"], "Invalid value for '--lora': "),
        (["defend", other, *defend[2:], "--adapter", adapter], "was made on other weights than"),
        (["implant", base, "--lora", "-1"], "Invalid value for '--lora': "),
    ):
        assert says in one_line(command(capsys, *arguments, "--out", tmp_path / "bad"))
