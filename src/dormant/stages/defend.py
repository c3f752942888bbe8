"""``defend``: one defense at one dose on one model, with a checkpoint at each step that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dormant.artifacts import RESUME
from dormant.defenses import TrainingRun
from dormant.stages import Progress
from dormant.stages.checkpoints import compute, open_model, saver
from dormant.stages.configs import DefendConfig
from dormant.stages.logs import write_log
from dormant.stages.machine import prepare
from dormant.stages.plugins import build_defense
from dormant.stages.supply import read_given, task_ids


def run(config: DefendConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``steps/<step>/`` (a model each) and ``training.json``; with an adapter, it too, by itself.

    ``inputs`` holds ``model`` and one artifact for each of the defense's needs; the defense sees nothing else.
    With ``lora: continue`` the model is the organism's base, and ``adapter`` is what the implant trained.
    """
    prepare(config.runtime)
    defense = build_defense(config.defense)
    needs = {name: path for name, path in inputs.items() if name not in ("model", "adapter")}
    model = open_model(config, inputs, seed)
    training = TrainingRun(
        seed=seed,
        at_steps=config.at_steps,
        save=saver(out),
        resume_dir=out / RESUME,
        progress=progress,
        compute=compute(config.runtime),
    )
    log = defense.train(model, read_given(needs), config.dose, training)
    write_log(out, log, config.at_steps, task_ids(needs))
