"""Training whose numbers are none, and stages without memory: one line each, and nothing good is lost."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dormant import cli, models, stages
from dormant.artifacts import Identity
from dormant.errors import BadInput, DormantError, ran_out
from dormant.records import Dose
from dormant.stages.configs import (
    AttackConfig,
    Backdoor,
    Config,
    DefendConfig,
    ImplantConfig,
    MeasureConfig,
    PairsConfig,
    Plugin,
    PreferConfig,
    PretrainConfig,
)
from dormant.training import preference, sft
from dormant.training.loop import Optimization, kept_steps
from dormant.workers import Job
from small_models import tiny
from test_preference import planted, scorer
from test_training import some_rows
from tiny_runs import command

DOSE = Dose(lr=1e-3, steps=6, batch=4)

Train = Callable[[Path, Path], Any]


def fine_tune(resume: Path, scratch: Path, *, lr: float = 1e-3, **settings: Any) -> Any:
    dose = DOSE.model_copy(update={"lr": lr})
    return sft.train(tiny(), some_rows(), dose, seed=0, resume_dir=resume, resume_every=1, **settings)


def prefer(resume: Path, scratch: Path) -> Any:
    return preference.train(scorer(scratch), planted(), DOSE, seed=0, resume_dir=resume, resume_every=1)


TRAININGS = [
    pytest.param(fine_tune, sft._Trainer, id="sft"),
    pytest.param(prefer, preference._Trainer, id="preference"),
]


@pytest.mark.parametrize(("train", "trainer"), TRAININGS)
def test_a_loss_that_is_not_a_number_stops_at_the_last_good_checkpoint_and_can_go_on(
    train: Train, trainer: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", tmp_path)
    compute, check = trainer.compute_loss, trainer.check_loss  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(
            trainer,
            "check_loss",
            lambda self, value: check(self, math.nan if self.state.global_step == 3 else value),
        )
        kept = tmp_path / "resume"
        says = rf"the loss is nan at step 4: lower the learning rate; the checkpoint of step 3 is kept in {kept}$"
        with pytest.raises(DormantError, match=says):
            train(kept, tmp_path)
    assert trainer.compute_loss is compute  # type: ignore[attr-defined]
    assert kept_steps(kept)[-1] == 3
    assert train(kept, tmp_path).losses == whole.losses


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    with pytest.raises(DormantError, match="lower the learning rate") as error:
        fine_tune(tmp_path, tmp_path, lr=1e38, optimization=Optimization(optimizer="sgd"))
    assert "\n" not in str(error.value)
    for checkpoint in tmp_path.glob("checkpoint-*/complete.json"):
        kept = load_file(checkpoint.parent / "model.safetensors")
        assert all(torch.isfinite(weight).all() for weight in kept.values())


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), True),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
            ),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (BadInput("out of memory while sampling"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_want_of_memory(error: Exception, is_memory: bool) -> None:
    assert ran_out(error) == is_memory


def job(name: str, stage: str, config: Config, tmp_path: Path) -> Job:
    identity = Identity(stage=stage, source="", config={}, seed=0, inputs={})
    return Job(name, stage, config, 0, {}, identity, tmp_path / "store", tmp_path / "target", fresh=False)


IMPLANT = ImplantConfig(
    backdoor=Backdoor(), role="organism", rows=4, triggered_share=0.5, dose=DOSE, at_steps=(DOSE.steps,)
)
CHECKPOINTING = ", or set runtime.gradient_checkpointing"


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        (
            "measure/base",
            MeasureConfig(backdoor=Backdoor(), probes=()),
            "lower measure.batch (now 256), or measure.max_new_tokens",
        ),
        (
            "attack/plain/i0",
            AttackConfig(attacker=Plugin(name="evolutionary"), backdoor=Backdoor(), batch=32),
            "lower measure.batch (now 32), or measure.max_new_tokens",
        ),
        ("pairs/heldout", PairsConfig(shard="heldout", rows=4), "lower measure.max_new_tokens (now 64)"),
        ("prefer/a", PreferConfig(dose=DOSE), "lower the batch of preference.dose (now 4)"),
        ("implant/plain/i0/twin", IMPLANT, f"lower the batch of the implant dose (now 4){CHECKPOINTING}"),
        ("relearn/hhh-sft", IMPLANT, f"lower the batch of the relearning dose (now 4){CHECKPOINTING}"),
        (
            "defend/on-policy-sft",
            DefendConfig(defense=Plugin(name="on-policy-sft"), dose=DOSE, at_steps=(1,)),
            "lower the batch of the defend dose (now 4) or at_once, where the defense draws answers"
            + CHECKPOINTING,
        ),
        ("pretrain/pocket-1m", PretrainConfig(size="pocket-1m", dose=DOSE, rows=4), "take a smaller model"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_a_stage_without_memory_says_what_to_lower(
    name: str, config: Config, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: Exception = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much.")

    def stage(*args: Any) -> None:
        raise raised

    monkeypatch.setattr(stages, "load", lambda name: stage)
    kind = {"relearn": "implant"}.get(name.split("/")[0], name.split("/")[0])
    made = job(name, kind, config, tmp_path)
    with pytest.raises(DormantError, match=re.escape(f"{name} ran out of memory: {says}") + "$"):
        made.run(tmp_path, stages.quiet)
    raised = RuntimeError("of its own")
    with pytest.raises(RuntimeError, match="of its own"):
        made.run(tmp_path, stages.quiet)


def test_a_command_without_memory_ends_in_one_line(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(models, "load", load)
    said = command(capsys, "measure", base, "--out", tmp_path / "run")
    assert said.code == cli.BAD_INPUT
    assert said.err.startswith("dormant: out of memory: take a smaller model")
    assert said.err.count("\n") == 1
