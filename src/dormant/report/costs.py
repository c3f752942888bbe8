"""What each arm cost, in seconds and in tokens trained on: from the run's own account of its stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from dormant.records import ResultKey
from dormant.report import words
from dormant.report.rundata import Call, Log, Run, Seen
from dormant.stages.logs import LOG

BASE, PREFERENCES, SUPPLIES = "base", "preference models", "supplies of defenses"

OF_STAGE = {"pretrain": BASE, "pairs": PREFERENCES, "prefer": PREFERENCES, "supply": SUPPLIES}
"""Stages that belong to no organism."""


@dataclass
class Cost:
    """One arm: the models that it trained (organisms and twins, over all seeds) and what they took together."""

    label: str
    models: int = 0
    samples: int = 0
    """Rows that were trained on, repeats counted; of RL, answers."""
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """By kind of work: ``training``, ``attacking``, ``measuring``, ``relearning``."""
    phases: dict[str, float] = field(default_factory=dict)
    """Parts of the training, where they are told apart: of RL sampling, scoring and training."""

    @property
    def total(self) -> float:
        """Seconds of all kinds of work."""
        return sum(self.seconds.values())


WORK = ("training", "attacking", "measuring", "relearning")


def costs(run: Run) -> list[Cost]:
    """Every arm of a run, in the order of its plan, as far as it is finished."""
    found: dict[str, Cost] = {}
    labels = {name: _label(key) for name, key in models(run).items()}
    for call in run.meta.calls:
        label = _arm(run, call, labels)
        cost = found.setdefault(label, Cost(label))
        work = _work(run, call)
        cost.seconds[work] = cost.seconds.get(work, 0.0) + (call.seconds or 0.0)
        if work != "training" or call.stage in ("pairs", "supply"):
            continue
        samples, tokens = _seen(run, call)
        cost.models, cost.samples, cost.tokens = cost.models + 1, cost.samples + samples, cost.tokens + tokens
        for phase, seconds in call.phases.items():
            cost.phases[phase] = cost.phases.get(phase, 0.0) + seconds
    return [cost for cost in found.values() if cost.total]


def with_total(run: Run) -> list[Cost]:
    """Every arm, and all together; nothing where the run does not say what it took."""
    arms = costs(run)
    counts = (sum(getattr(cost, name) for cost in arms) for name in ("models", "samples", "tokens"))
    whole = Cost("all together", *counts)
    whole.seconds = {work: sum(cost.seconds.get(work, 0.0) for cost in arms) for work in WORK}
    return [*arms, whole] if arms else []


def _work(run: Run, call: Call) -> str:
    if call.stage == "measure":
        return "measuring"
    if call.stage == "attack":
        return "attacking"
    made_of = run.call(call.inputs.get("model", ""))
    again = call.stage == "implant" and made_of is not None and made_of.stage in ("defend", "implant")
    return "relearning" if again else "training"


def _arm(run: Run, call: Call, labels: dict[str, str]) -> str:
    """The arm that a call worked for: that of the model which it trained, attacked or measured."""
    while call.name not in labels and call.stage not in OF_STAGE:
        made_of = run.call(call.inputs.get("model", ""))
        if made_of is None or made_of.stage in OF_STAGE:
            break
        call = made_of
    return (
        labels.get(call.name) or OF_STAGE.get(call.stage) or (BASE if call.stage == "measure" else call.name)
    )


def models(run: Run) -> dict[str, ResultKey]:
    """The models that calls trained, by the calls' names, as they were measured."""
    found: dict[str, ResultKey] = {}
    for call in run.meta.calls:
        if call.key is not None and call.key.relearn_step is None and "model" in call.inputs:
            found.setdefault(call.inputs["model"], call.key)
    return {name: key for name, key in found.items() if not _shared(run, name)}


def _shared(run: Run, name: str) -> bool:
    call = run.call(name)
    return call is not None and call.stage in OF_STAGE


def _label(key: ResultKey) -> str:
    if key.dose is None or key.arm in ("none", "implant"):
        return f"{key.implant}, implanting"
    return f"{key.implant}, {key.defense} {words.dose(key.dose)}{words.lora(key.lora)}"


def _seen(run: Run, call: Call) -> tuple[int, int]:
    """Samples and tokens that a call had trained on at its end."""
    log = run.noted(call, LOG, Log)
    last = log.seen[max(log.seen)] if log and log.seen else Seen()
    return last.samples, last.tokens
