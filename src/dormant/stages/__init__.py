"""Stages: pure functions (config, input artifacts, seed) -> one new artifact directory.

Each module has ``run(config, inputs, seed, out, progress)``.  They are named here by string, because importing
one imports torch, and a plan is made without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from dormant.stages.configs import Config

Progress = Callable[[int, int], None]
"""Called with (done, total) while a stage works."""


def quiet(done: int, total: int) -> None:
    """The progress of those who want to hear nothing."""


STAGES = {
    "pretrain": "dormant.stages.pretrain",
    "supply": "dormant.stages.supply",
    "pairs": "dormant.stages.pairs",
    "prefer": "dormant.stages.prefer",
    "implant": "dormant.stages.implant",
    "attack": "dormant.stages.attack",
    "defend": "dormant.stages.defend",
    "measure": "dormant.stages.measure",
}


class Stage(Protocol):
    """What a stage's ``run`` takes."""

    def __call__(
        self, config: Config, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress
    ) -> None: ...


def load(name: str) -> Stage:
    """Import a stage and return its ``run``."""
    run: Stage = importlib.import_module(STAGES[name]).run
    return run


def adapter_directory(step: int) -> str:
    """The directory of the adapter that a checkpoint was trained through."""
    return f"adapters/{step:06d}"


def step_directory(step: int) -> str:
    """The directory of a checkpoint inside its artifact."""
    return f"steps/{step:06d}"
