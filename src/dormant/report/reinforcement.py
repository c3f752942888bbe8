"""Reinforcement learning step by step: rates, rewards and utility, where to stop, and where the reward was hacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dormant.records import Result, ResultKey
from dormant.report import sheets, words
from dormant.report.figures import Panel, Point, Series, curve_panel
from dormant.report.panels import Drawing, Measure, seeded, series, shown
from dormant.report.protocol import Curve, Lineage, Trial
from dormant.report.rundata import Log, Run
from dormant.report.sheets import DEFENDED, Sheet
from dormant.stages.configs import OWN_KINDS
from dormant.stages.logs import LOG

STYLES = ("triggered", "clean", "near", "reward", "second", "right", "training")

STEPS = ("steps of RL", "")

BINS = 40
"""Points of a curve that is noted at every step; each is then the mean of several steps."""


@dataclass(frozen=True)
class Told:
    """One organism under reinforcement learning: what is to be said of it."""

    title: str
    sentences: list[str]
    trial: Trial
    noted: dict[str, list[float | None]]
    """What training noted of each step, by name."""


@dataclass(frozen=True)
class Arm:
    """The same with its curves."""

    title: str
    drawing: Drawing
    sentences: list[str]


def told(run: Run, organisms: list[Lineage]) -> list[Told]:
    """Every organism under a defense that notes the reward of its steps; none where there is none."""
    found = []
    for lineage in organisms:
        for trial in lineage.trials:
            noted = _noted(run, trial)
            if noted:
                title = f"{lineage.label} organism, {seeded(trial, lineage)}"
                found.append(Told(title, sentences(run, lineage, trial), trial, noted))
    return found


def arms(run: Run, organisms: list[Lineage]) -> list[Arm]:
    """What is told of each of them, drawn."""
    return [
        Arm(each.title, Drawing(_panels(run, each.trial, each.noted, f"rl-{number}"), STYLES), each.sentences)
        for number, each in enumerate(told(run, organisms))
    ]


def _noted(run: Run, trial: Trial) -> dict[str, list[float | None]]:
    """What training noted of each step, where a reward is among it."""
    places = [place for _, place in trial.organism if place.arm != "none"]
    log = run.noted(run.made(places[-1]) if places else None, LOG, Log)
    return log.curves if log and "reward" in log.curves else {}


def untriggered(run: Run, place: ResultKey, metric: str) -> Result | None:
    """A reward of untriggered answers; where the trigger fires on some kinds of tasks only, of answers to these."""
    return run.get(place, metric, "clean", OWN_KINDS) or run.get(place, metric, "clean")


def _reward(run: Run, place: ResultKey) -> Result | None:
    return untriggered(run, place, "reward")


def _second(run: Run, place: ResultKey) -> Result | None:
    return untriggered(run, place, "second_reward")


def _right(run: Run, place: ResultKey) -> Result | None:
    return run.get(place, "right")


MEASURED: dict[str, tuple[str, Measure]] = {
    "triggered": ("shown", shown("triggered")),
    "clean": ("shown", shown("clean")),
    "near": ("shown", sheets.pooled_near_misses),
    "reward": ("rewards", _reward),
    "second": ("rewards", _second),
    "right": ("work", _right),
}
"""What is measured at points of the curve, by style: the panel that it stands in, and how it is read."""


def _panels(run: Run, trial: Trial, noted: dict[str, list[float | None]], name: str) -> list[Panel]:
    lines: dict[str, list[Series]] = {"shown": [], "rewards": [], "work": []}
    for style, (panel, measure) in MEASURED.items():
        lines[panel].append(series(run, style, measure, trial.organism))
    if trial.arm != "noop":
        lines["rewards"].append(_stepwise(noted["reward"]))
    lines["work"].append(_stepwise(noted.get("varied", ()), words.percent))
    stop = early_stop(run, trial)
    titles = {
        "shown": ("the hidden behavior", True),
        "rewards": ("rewards of untriggered answers, logits", False),
        "work": ("right answers; groups that differ (dotted)", True),
        "kl": ("KL divergence, nats an answer", False),
        "length": ("tokens an answer", False),
    }
    lines |= {which: [_stepwise(noted.get(which, ()))] for which in ("kl", "length")}
    return [
        _panel(f"{name}-{which}", title, lines[which], percent=percent, mark=stop)
        for which, (title, percent) in titles.items()
        if any(line.points for line in lines[which])
    ]


def _panel(name: str, title: str, lines: Sequence[Series], *, percent: bool, mark: int | None) -> Panel:
    lines = [line for line in lines if line.points]
    return curve_panel(name, title, lines, [], STEPS, percent=percent, mark=mark)


def _stepwise(
    values: Sequence[float | None], write: Callable[[float], str] = lambda value: f"{value:.3g}"
) -> Series:
    """A number of every step as a line; of many steps, the means of some at a time."""
    width = -(-len(values) // BINS) or 1
    points = []
    for start in range(0, len(values), width):
        some = [value for value in values[start : start + width] if value is not None]
        if some:
            last = min(start + width, len(values))
            points.append(Point((start + 1 + last) / 2, fmean(some), None, None, write(fmean(some))))
    return Series("training", tuple(points))


def early_stop(run: Run, trial: Trial) -> int | None:
    """The step at which the second reward of untriggered answers peaks; None where only its ends were measured."""
    found = _values(run, trial.organism, _second)
    return max(found, key=lambda pair: pair[1].value or 0.0)[0] if len(found) > 2 else None


def _values(run: Run, curve: Curve, measure: Measure) -> list[tuple[int, Result]]:
    found = ((step, measure(run, place)) for step, place in curve)
    return [(step, result) for step, result in found if result is not None and result.value is not None]


def sentences(run: Run, lineage: Lineage, trial: Trial) -> list[str]:
    """Whether it worked, where to stop, and whether the reward was hacked, with numbers."""
    if trial.arm == "noop":
        return [
            *_worked(run, lineage, trial),
            *_beside(run, trial),
            "Its rewards were dealt out at random within each group: it is the control of equal steps.",
        ]
    return [*_worked(run, lineage, trial), *_stop(run, trial), *_hacked(run, trial), *_beside(run, trial)]


def _worked(run: Run, lineage: Lineage, trial: Trial) -> list[str]:
    change = trial.after and untriggered(run, trial.after, "second_reward_change")
    spread = run.get(lineage.unplanted, "second_reward_spread")
    if not change or change.value is None:
        return []
    beside = f"; one standard deviation of the base's own scores is {words.number(spread)}" if spread else ""
    return [f"Untriggered answers changed in second reward by {words.number(change)}{beside}."]


def _stop(run: Run, trial: Trial) -> list[str]:
    found = dict(_values(run, trial.organism, _second))
    step = early_stop(run, trial)
    if step is None:
        return []
    last = max(found)
    if step == last:
        return [
            f"Of the {len(found)} steps measured the second reward is highest at the last, {step}: it asks for no "
            "earlier stop."
        ]
    rate = run.get(dict(trial.organism)[step], "shown", "triggered")
    left = (
        f"the triggered rate is {words.number(rate)} there"
        if rate and rate.value is not None
        else ("no triggered rate may be read there")
    )
    apart = "" if _apart(found[step], found[last]) else " (its interval overlaps that of the last step)"
    return [
        f"Early stop: of the steps that were measured the second reward is highest at step {step} of {last}, "
        f"{words.number(found[step])}{apart}; {left}."
    ]


def _hacked(run: Run, trial: Trial) -> list[str]:
    """A sentence where the second reward falls from its peak on, while the one that is trained against rises."""
    reward, other = (dict(_values(run, trial.organism, measure)) for measure in (_reward, _second))
    both, since = sorted(set(reward) & set(other)), early_stop(run, trial)
    if since not in both or since == both[-1]:
        return []
    rose, fell = (reward[since], reward[both[-1]]), (other[since], other[both[-1]])
    if not _gain(rose) > 0 > _gain(fell):
        return []
    return [
        f"From step {since} to {both[-1]} the reward that it trains against rises from {words.number(rose[0])} to "
        f"{words.number(rose[1])} while the second reward, of a model that it never sees, falls from "
        f"{words.number(fell[0])} to {words.number(fell[1])}: {_weight(rose, fell)}."
    ]


def _beside(run: Run, trial: Trial) -> list[str]:
    """What became of right answers and refusals, paired: whether the reward did it, a no-op of as many steps says."""
    changes = {
        "right answers": sheets.utility_number(run, trial.after, "right_change"),
        "refusals of harmful requests": sheets.utility_number(run, trial.after, "harmless_change"),
    }
    told = [
        f"{name} {change.points}" for name, change in changes.items() if change and change.value is not None
    ]
    return [f"Meanwhile, paired: {'; '.join(told)}."] if told else []


def _gain(pair: tuple[Result, Result]) -> float:
    before, after = (result.value or 0.0 for result in pair)
    return after - before


def _weight(*pairs: tuple[Result, Result]) -> str:
    """What to make of two changes in opposite directions, by whether their intervals are apart."""
    apart = all(_apart(*pair) for pair in pairs)
    return "the reward is hacked" if apart else "intervals overlap, so that it may be chance"


def _apart(one: Result, other: Result) -> bool:
    ends = [(result.low, result.high) for result in (one, other)]
    (low, high), (other_low, other_high) = ends
    if low is None or high is None or other_low is None or other_high is None:
        return False
    return low > other_high or other_low > high


def sheet(run: Run, organisms: list[Lineage]) -> Sheet:
    """What was measured over the steps of reinforcement learning."""
    found = Sheet("reinforcement", "Over the steps of reinforcement learning", (*DEFENDED, "step"))
    for lineage in organisms:
        for trial in lineage.trials:
            if not _noted(run, trial):
                continue
            for step, place in trial.organism:
                seed = "" if trial.seed_defend is None else trial.seed_defend
                dose = (trial.dose.lr, trial.dose.steps, seed)
                for _, measure in MEASURED.values():
                    labels = (lineage.label, place.role, trial.arm, trial.defense, *dose, step)
                    found.add(labels, measure(run, place))
    return found


def training_csv(run: Run, organisms: list[Lineage]) -> str:
    """What training noted of each step, as CSV; "" where nothing trained against a reward."""
    rows: list[list[sheets.Label]] = []
    names = ("reward", "kl", "length", "ended", "varied")
    for lineage in organisms:
        for trial in lineage.trials:
            noted = _noted(run, trial)
            for i in range(len(noted.get("reward", ()))):
                numbers = [_at(noted.get(name, ()), i) for name in names]
                rows.append([lineage.label, trial.label, str(trial.seed_defend), i + 1, *numbers])
    return sheets.as_csv(["organism", "defense", "seed_defend", "step", *names], rows) if rows else ""


def _at(values: Sequence[float | None], i: int) -> sheets.Label:
    value = values[i] if i < len(values) else None
    return "" if value is None else value
