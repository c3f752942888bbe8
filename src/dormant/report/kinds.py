"""Kinds of safety training, as the paper has them: what of a run stands beside what of the paper."""

from __future__ import annotations

from typing import Any

from dormant.defenses import name_of
from dormant.defenses.texts import SHARE
from dormant.report.paper import CODE
from dormant.report.protocol import Lineage, Trial
from dormant.report.rundata import Run

SFT, RL, ADVERSARIAL, SAFE_CODE, CONTROL = "hhh-sft", "hhh-rl", "adversarial", "safe-code", "control"

KINDS = {
    "on-policy-sft": SFT,
    "adversarial-sft": ADVERSARIAL,
    "varied-sft": CONTROL,
    "varied-rl": CONTROL,
    "safe-code-sft": SAFE_CODE,
}
"""Of defenses that are not named like their kind."""

SHARES = ("share", "attack_share")
"""Options that say how much of a defense's prompts an attack found."""


def is_code(lineage: Lineage) -> bool:
    """Whether an organism writes insecure code."""
    return lineage.behavior.startswith(CODE)


def kind_of(run: Run, trial: Trial) -> str:
    """The kind of safety training that a defense is; its own name where the paper has none like it."""
    name = name_of(trial.defense)
    if name.startswith(RL):
        return ADVERSARIAL if share_of(run, trial) else RL
    return KINDS.get(name, name)


def share_of(run: Run, trial: Trial) -> float:
    """The share of a defense's prompts that an attack found."""
    options = _options(run, trial)
    default = SHARE if name_of(trial.defense) in ("adversarial-sft", "varied-sft", "varied-rl") else 0.0
    return next((float(options[name]) for name in SHARES if name in options), default)


def _options(run: Run, trial: Trial) -> dict[str, Any]:
    """What the spec or the label says of a defense beside its name."""
    name, _, told = trial.defense.partition("(")
    if told:
        return dict(each.split("=", 1) for each in told.rstrip(")").split(", ") if "=" in each)
    for spec in run.meta.spec.get("defenses", ()):
        if isinstance(spec, dict) and spec.get("name") == name:
            return spec
    return {}
