"""What every training stage leaves beside its models: losses, and what had been seen by each checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dormant.artifacts import PHASES, write_atomic
from dormant.records import canonical

if TYPE_CHECKING:
    from dormant.training.sft import TrainingLog

LOG = "training.json"


def write_log(out: Path, log: TrainingLog, at_steps: Sequence[int], tasks: Iterable[str]) -> None:
    """Write ``training.json``: losses, samples and tokens seen by each checkpoint, and the tasks trained on.

    What else was measured at each step stands under ``curves``, by name, and what became of rows under ``counts``.
    Times go to the manifest.
    """
    seen = {
        str(step): {"samples": log.samples_seen(step), "tokens": log.tokens_seen(step)} for step in at_steps
    }
    losses = [round(loss, 6) for loss in log.losses]
    told = {"seen": seen, "losses": losses, "tasks": sorted(tasks)}
    if log.curves:
        told["curves"] = {name: list(map(_rounded, values)) for name, values in log.curves.items()}
    if log.counts:
        told["counts"] = dict(log.counts)
    write_atomic(out / LOG, canonical(told) + "\n")
    if log.seconds:
        phases = {name: sum(values) for name, values in log.seconds.items()}
        write_atomic(out / PHASES, canonical(phases) + "\n")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def read_log(artifact: Path) -> dict[str, Any]:
    """The log that :func:`write_log` wrote."""
    log: dict[str, Any] = json.loads((artifact / LOG).read_text(encoding="utf-8"))
    return log
