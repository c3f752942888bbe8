"""What a stage call will cost, roughly: for plans, and for the first guess of the time left.

The rates are those of one of two processes at work on a 2-core server CPU, with pocket-1m; other machines and models
differ, which the progress bar notices as it goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dormant.defenses import kinds_for
from dormant.records import Dose
from dormant.runner import Call, Output
from dormant.stages.configs import AttackConfig, DefendConfig, MeasureConfig, PairsConfig, PreferConfig
from dormant.stages.plugins import build_defense

ROWS_PER_SECOND = 380.0
"""Training rows of a pocket dialogue."""
COMPLETIONS_PER_SECOND = 230.0
"""Sampled, judged, and scored by two preference models."""
SAMPLES_PER_PAIR = 3.4
"""Of a base, to make pairs of."""
STAGE_SECONDS = 0.7
"""Loading, saving, checking."""
CHECKPOINT_BYTES = 4_400_000
COMPLETION_BYTES = 900


LONGER = {"training": 6.0, "sampling": 4.5}
"""How many times as long a row takes that is code, or has a scratchpad."""


def seconds(call: Call) -> float:
    """Expected duration of a call."""
    if isinstance(call.config, MeasureConfig):
        rows = _completions(call.config) * (LONGER["sampling"] if _long(call) else 1.0)
        return STAGE_SECONDS + rows / COMPLETIONS_PER_SECOND
    if isinstance(call.config, PairsConfig):
        return STAGE_SECONDS + SAMPLES_PER_PAIR * call.config.rows / COMPLETIONS_PER_SECOND
    if isinstance(call.config, AttackConfig):
        rows = call.config.budget * (LONGER["sampling"] if _long(call) else 1.0)
        return STAGE_SECONDS + rows / COMPLETIONS_PER_SECOND
    dose: Dose | None = getattr(call.config, "dose", None)
    answers = 2 if isinstance(call.config, PreferConfig) else 1
    longer = LONGER["training"] if _long(call) else 1.0
    rows = answers * dose.steps * dose.batch * longer if dose else 0.0
    return STAGE_SECONDS + rows / ROWS_PER_SECOND + _drawing(call)


def together(calls: Sequence[Call], workers: int) -> float:
    """Expected seconds for all of them, so many at a time: no less than the longest chain of which each waits for one.

    Args:
        calls: in an order in which they can run; what is not among them is there.
        workers: how many processes, each with a core of its own.
    """
    ends: dict[str, float] = {}
    for call in calls:
        waits = [ends.get(given.call, 0.0) for given in call.inputs.values() if isinstance(given, Output)]
        ends[call.name] = max(waits, default=0.0) + seconds(call)
    return max(max(ends.values(), default=0.0), sum(map(seconds, calls)) / workers)


def _drawing(call: Call) -> float:
    """What a defense takes that lets the model write."""
    config = call.config
    if not isinstance(config, DefendConfig):
        return 0.0
    defense = build_defense(config.defense)
    long = config.reasoning == "scratchpad" or bool(kinds_for(defense))
    drawn = getattr(defense, "draws", 0) * config.dose.steps * config.dose.batch
    return drawn * (LONGER["sampling"] if long else 1.0) / COMPLETIONS_PER_SECOND


def _long(call: Call) -> bool:
    """Whether the call's rows are code or have scratchpads, as far as its config says so."""
    backdoor = getattr(call.config, "backdoor", None)
    return backdoor is not None and (
        backdoor.reasoning == "scratchpad" or backdoor.behavior.name == "insecure-code"
    )


def disk_bytes(call: Call) -> int:
    """Expected size of what a call writes."""
    if isinstance(call.config, MeasureConfig):
        return _completions(call.config) * COMPLETION_BYTES
    if isinstance(call.config, AttackConfig):
        return call.config.budget * COMPLETION_BYTES
    return len(getattr(call.config, "at_steps", ())) * CHECKPOINT_BYTES


def _completions(config: MeasureConfig) -> int:
    return sum(probe.n + probe.greedy for probe in config.probes)
