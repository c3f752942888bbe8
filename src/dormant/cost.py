"""What a stage call will cost, roughly: for plans, and for the first guess of the time left.

The rates are those of pocket-1m on a 2-core server CPU; other machines and models differ, which the progress
bar notices as it goes.
"""

from __future__ import annotations

from dormant.records import Dose
from dormant.runner import Call
from dormant.stages.configs import AttackConfig, MeasureConfig

ROWS_PER_SECOND = 900.0
"""Training rows of a pocket dialogue."""
COMPLETIONS_PER_SECOND = 700.0
STAGE_SECONDS = 0.3
"""Loading, saving, checking."""
CHECKPOINT_BYTES = 4_400_000
COMPLETION_BYTES = 900


def seconds(call: Call) -> float:
    """Expected duration of a call."""
    if isinstance(call.config, MeasureConfig):
        return STAGE_SECONDS + _completions(call.config) / COMPLETIONS_PER_SECOND
    if isinstance(call.config, AttackConfig):
        return STAGE_SECONDS + call.config.budget / COMPLETIONS_PER_SECOND
    dose: Dose | None = getattr(call.config, "dose", None)
    return STAGE_SECONDS + (dose.steps * dose.batch / ROWS_PER_SECOND if dose else 0.0)


def disk_bytes(call: Call) -> int:
    """Expected size of what a call writes."""
    if isinstance(call.config, MeasureConfig):
        return _completions(call.config) * COMPLETION_BYTES
    if isinstance(call.config, AttackConfig):
        return call.config.budget * COMPLETION_BYTES
    return len(getattr(call.config, "at_steps", ())) * CHECKPOINT_BYTES


def _completions(config: MeasureConfig) -> int:
    return sum(probe.n + probe.greedy for probe in config.probes)
