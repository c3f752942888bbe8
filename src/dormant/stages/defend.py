"""``defend``: one defense at one dose on one model, with a checkpoint at each step that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dormant.artifacts import RESUME
from dormant.defenses import TrainingRun
from dormant.errors import BadInput
from dormant.stages import Progress, step_directory
from dormant.stages.checkpoints import compute, open_model, saver
from dormant.stages.configs import DefendConfig, Runtime
from dormant.stages.logs import write_log
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_defense
from dormant.stages.supply import read_given, task_ids

if TYPE_CHECKING:
    from dormant.training.sft import TrainingLog


def run(config: DefendConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``steps/<step>/`` (a model each) and ``training.json``; with an adapter, it too, by itself.

    ``inputs`` holds ``model`` and one artifact for each of the defense's needs; the defense sees nothing else.
    With ``lora: continue`` the model is the organism's base, and ``adapter`` is what the implant trained.
    """
    prepare(config.runtime)
    defense = build_defense(config.defense)
    needs = {name: path for name, path in inputs.items() if name not in ("model", "adapter")}
    model = replace(open_model(config, inputs, seed), reasoning=config.reasoning)
    asked: list[str] = []
    training = _watched(asked)(
        seed=seed,
        at_steps=config.at_steps,
        save=saver(out),
        resume_dir=out / RESUME,
        progress=progress,
        compute=compute(config.runtime),
    )
    log = defense.train(model, read_given(needs, config.runtime.device), config.dose, training)
    if (settings := _trained_with(config.runtime)) and not asked:
        line = f"defense {config.defense.name!r} does not read run.compute, so it trained without {settings}"
        print(f"warning: {line}", file=sys.stderr, flush=True)
    _check_done(config, log, out)
    write_log(out, log, config.at_steps, task_ids(needs))


def _check_done(config: DefendConfig, log: TrainingLog | None, out: Path) -> None:
    """What a plug-in may forget.  Raises BadInput."""
    who = f"defense {config.defense.name!r}"
    if log is None:
        raise BadInput(
            f"{who}: train() returned nothing; it must return a training log, as training.sft.train does"
        )
    for step in config.at_steps:
        if not (out / step_directory(step)).is_dir():
            raise BadInput(f"{who}: train() did not call run.save at step {step}, which run.at_steps names")


def _watched(asked: list[str]) -> type[TrainingRun]:
    """A training run that notes whether it is asked how the machine is to be used, by name or with all else."""

    class Watched(TrainingRun):
        def __getattribute__(self, name: str) -> Any:
            if name in ("compute", "__dict__"):
                asked.append(name)
            return super().__getattribute__(name)

    return Watched


def _trained_with(runtime: Runtime) -> str:
    """What reaches a defense's training through ``run.compute`` alone, as far as it is not the default."""
    default = Runtime()
    names = ("precision", "compile", "gradient_checkpointing", "report_to", "processes", "launch")
    changed = (name for name in names if getattr(runtime, name) != getattr(default, name))
    return ", ".join(f"runtime.{name}" for name in changed)
