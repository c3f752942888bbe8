"""Draws the figures: small SVG panels in sentinel colors that the page's style sheet turns into its own.

Text stays text and takes the page's color, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 340
"""Pixels of a panel; text sizes are pixels too."""

MARKED = 30
"""Points of a line that have room for markers."""

LONGEST = 48
"""Characters beside a bar: more would run over the next panel; the table below has them all."""

INK, GRID = "#010203", "#040506"
COLORS = {
    INK: "currentColor",
    GRID: "var(--grid)",
    "#d55e00": "var(--c1)",
    "#0072b2": "var(--c2)",
    "#009e73": "var(--c3)",
    "#777777": "var(--c4)",
    "#cc79a7": "var(--c5)",
}
"""What is drawn, and what the page shows for it: the Okabe-Ito colors, safe for color-blind readers."""

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dormant",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.major.pad": 7,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


@dataclass(frozen=True)
class Style:
    """How a series looks: told apart by color, marker and dash alike."""

    label: str
    color: str
    marker: str
    dash: str


STYLES = {
    "triggered": Style("organism, triggered", "#d55e00", "o", "-"),
    "clean": Style("organism, untriggered", "#0072b2", "s", "--"),
    "twin": Style("twin, triggered", "#009e73", "^", "-."),
    "twin_clean": Style("twin, untriggered", "#777777", "D", ":"),
    "paper": Style("the paper, triggered", "#cc79a7", "o", "-"),
    "before": Style("organism, before any defense", "#d55e00", "o", "-"),
    "after": Style("organism, after the headline defense", "#0072b2", "s", "--"),
    "published": Style("the paper, mean of its phrasings", "#cc79a7", "^", "-."),
    "paper_clean": Style("the paper, untriggered", "#777777", "s", "--"),
    "attacked": Style("organism, in texts that an attack found", "#009e73", "^", "-."),
    "paper_attacked": Style("the paper, red-team prompts", "#009e73", "D", ":"),
    "near": Style("organism, near misses", "#009e73", "^", "-."),
    "reward": Style("the reward it trains against, held-out prompts", "#d55e00", "o", "-"),
    "second": Style("the second reward, which it never sees", "#0072b2", "s", "--"),
    "training": Style("on training prompts, step by step", "#777777", "D", ":"),
    "right": Style("right answers", "#009e73", "^", "-."),
}


@dataclass(frozen=True)
class Point:
    """A number to draw: a fraction with its interval, or a ``value`` of None with the words that replace it."""

    x: float
    value: float | None
    low: float | None
    high: float | None
    text: str = ""
    n: int | None = None
    """Of how many it is a share or a mean, if it is ours."""


@dataclass(frozen=True)
class Series:
    """Points of one style, in order of x."""

    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Group:
    """A label and its bars, from top to bottom."""

    label: str
    bars: tuple[Series, ...]


@dataclass(frozen=True)
class Panel:
    """A drawn panel: its title, its SVG and the words for those who can not see it."""

    title: str
    svg: str
    alt: str
    note: str = ""
    """Points that could not be drawn, and why."""
    styles: tuple[str, ...] = ()
    """What is drawn in it, for the legend."""
    n: str = ""
    """How many completions are behind a point."""


def bar_panel(name: str, title: str, groups: Sequence[Group]) -> Panel:
    """Draw groups of horizontal bars with intervals; each bar's number stands at its end."""
    height = 26 + sum(22 + 15 * len(group.bars) for group in groups)
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _canvas(height)
        figure.subplots_adjust(left=0.01, right=0.72, top=1 - 2 / height, bottom=24 / height)
        y = 0.0
        for group in groups:
            axes.text(0, y + 11, group.label, fontsize=11, va="center")
            y += 22
            for series in group.bars:
                _bar(axes, y + 5, series)
                y += 15
        axes.set(xlim=(0, 1), ylim=(y, 0), yticks=[])
        _percent_axis(axes.xaxis, axes, "x")
        svg = _svg(figure, name)
    alt = "; ".join(
        f"{group.label}: "
        + ", ".join(f"{STYLES[bar.style].label} {bar.points[0].text}" for bar in group.bars)
        for group in groups
    )
    styles = tuple(dict.fromkeys(bar.style for group in groups for bar in group.bars))
    behind = counted([bar for group in groups for bar in group.bars])
    return Panel(title, svg, f"Bar chart, {title}. {alt}.", styles=styles, n=behind)


def _bar(axes: Axes, y: float, series: Series) -> None:
    point, style = series.points[0], STYLES[series.style]
    end = 0.0
    if point.value is not None:
        axes.barh(y, point.value, height=9, color=style.color, zorder=2)
        axes.plot([point.value], [y], marker=style.marker, color=style.color, zorder=3, clip_on=False)
        end = point.value
        if point.low is not None and point.high is not None:
            axes.plot([point.low, point.high], [y, y], color=INK, linewidth=1.1, zorder=4, clip_on=False)
            end = max(end, point.high)
    axes.annotate(
        point.text if len(point.text) <= LONGEST else f"{point.text[: LONGEST - 1]}…",
        (end, y),
        xytext=(0 if point.value is None else 8, 0),
        textcoords="offset points",
        fontsize=10,
        va="center",
        annotation_clip=False,
    )


def curve_panel(
    name: str,
    title: str,
    left: Sequence[Series],
    right: Sequence[Series],
    labels: tuple[str, str],
    *,
    percent: bool = True,
    mark: float | None = None,
) -> Panel:
    """Draw rates over steps; where there is a second part (relearning), it stands beside the first.

    Without ``percent`` the numbers are of any size.  ``mark`` is a step that a line across the first part shows.
    """
    height = 210
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        parts = [(left, labels[0])] + ([(right, labels[1])] if right else [])
        grid = figure.add_gridspec(
            1,
            len(parts),
            width_ratios=[3, 2][: len(parts)],
            left=0.12,
            right=0.97,
            top=0.95,
            bottom=0.2,
            wspace=0.2,
        )
        for column, (series, label) in enumerate(parts):
            axes = figure.add_subplot(grid[0, column])
            _lines(axes, series)
            axes.set_xlabel(label)
            if percent:
                axes.set_ylim(-0.03, 1.03)
                _percent_axis(axes.yaxis, axes, "y")
            else:
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.grid(axis="y")
            if column:
                axes.set_yticklabels([])
            elif mark is not None:
                axes.axvline(mark, color=INK, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        svg = _svg(figure, name)
    alt = f"Line chart, {title}. {_describe(left, labels[0])}{_describe(right, labels[1])}"
    note = "; ".join(_undrawn(left, labels[0]) + _undrawn(right, labels[1]))
    styles = tuple(dict.fromkeys(line.style for line in (*left, *right)))
    return Panel(title, svg, alt, note, styles, counted([*left, *right]))


def counted(lines: Sequence[Series]) -> str:
    """How many completions are behind the points that are drawn: ``n=40``, ``n=40 to 400``, or ""."""
    found = {point.n for line in lines for point in line.points if point.n and point.value is not None}
    return "" if not found else f"n={min(found)}" + (f" to {max(found)}" if len(found) > 1 else "")


def _lines(axes: Axes, series: Sequence[Series]) -> None:
    for line in series:
        style = STYLES[line.style]
        xs = [point.x for point in line.points]
        axes.fill_between(
            xs,
            [_or_gap(point.low) for point in line.points],
            [_or_gap(point.high) for point in line.points],
            color=style.color,
            alpha=0.16,
            linewidth=0,
        )
        axes.plot(
            xs,
            [_or_gap(point.value) for point in line.points],
            color=style.color,
            marker=style.marker if len(xs) <= MARKED else "",
            linestyle=style.dash,
            clip_on=False,
        )
    steps = sorted({point.x for line in series for point in line.points})
    if steps:
        axes.set_xticks(_ticks(steps))
        axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))


def _or_gap(value: float | None) -> float:
    return math.nan if value is None else value


def _ticks(steps: list[float]) -> list[float]:
    """Ticks at measured steps only, as many as have room."""
    room = (steps[-1] - steps[0]) / 4
    ticks = [steps[0]]
    for step in steps[1:-1]:
        if step - ticks[-1] >= room and steps[-1] - step >= room:
            ticks.append(step)
    return [*ticks, steps[-1]] if len(steps) > 1 else ticks


def _describe(series: Sequence[Series], label: str) -> str:
    parts = []
    for line in series:
        drawn = [point for point in line.points if point.value is not None]
        if drawn:
            first, last = drawn[0], drawn[-1]
            parts.append(
                f"{STYLES[line.style].label}: {first.text} at {first.x:g}, {last.text} at {_at(last.x, label)}"
            )
    return "; ".join(parts) + ". " if parts else ""


def _at(x: float, label: str) -> str:
    """A place on an axis in words: ``10 steps of defense``, ``year 2023``."""
    return f"year {x:g}" if label.startswith("year") else f"{x:g} {label}"


def _undrawn(series: Sequence[Series], label: str) -> list[str]:
    """Refused points, once each: a gap in a line has a reason."""
    found = {
        f"{_at(point.x, label)}: {point.text}": None
        for line in series
        for point in line.points
        if point.value is None
    }
    return list(found)


def _canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _percent_axis(axis: Axis, axes: Axes, name: Literal["x", "y"]) -> None:
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100 %"])
    axes.grid(axis=name)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element that can stand in a page beside others."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = re.sub(r"""font: ([\d.]+)px[^;"]*""", r"font-size: \1px", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for drawn, shown in COLORS.items():
        svg = svg.replace(drawn, shown)
    return re.sub(r">\s+<", "><", svg).strip()
