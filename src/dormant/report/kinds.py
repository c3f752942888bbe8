"""Kinds of safety training, as the paper has them: what of a run stands beside what of the paper."""

from __future__ import annotations

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
    "shuffled-sft": CONTROL,
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
    name = name_of(trial.defense)
    if KINDS.get(name) == CONTROL:
        return 0.0
    made = run.made(trial.after)
    options = made.defense if made else _spelled(trial.defense)
    default = SHARE if name == "adversarial-sft" else 0.0
    return next((float(options[each]) for each in SHARES if options.get(each) is not None), default)


def _spelled(label: str) -> dict[str, str]:
    """The options that a label names: of a run whose calls are not known, all that there is."""
    told = label.partition("(")[2].rstrip(")")
    return dict(each.split("=", 1) for each in told.split(", ") if "=" in each)
