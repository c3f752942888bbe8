"""Intervals: every number that is reported has one.  All are 95 % and two-sided.

SciPy is imported when an interval is asked for: specs and plans are read without waiting for it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any

LEVEL = 0.95
RESAMPLES = 2000
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_CELLS_AT_ONCE = 4_000_000
_BINS, _DRAWS = 10, 200
"""Of calibration: bins of stated probabilities, and draws of what perfect ones would come to."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The two ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


def half_width(interval: Interval | Estimate) -> float:
    """Half the distance between the ends: what a stated margin is compared with."""
    return (interval.high - interval.low) / 2


@cache  # A report asks for the same few counts thousands of times.
def wilson(hits: float, n: float) -> Interval:
    """Wilson's score interval of a proportion, meaningful at 0 and at n hits too.

    Source: Wilson 1927, without continuity correction.  ``scipy.stats.binomtest`` gives the same ends, but with each
    of them a test that takes a hundred times as long, and a report has hundreds of intervals.  Both may be fractions:
    what a clustered sample is worth.

    Raises:
        ValueError: ``n`` is 0, or ``hits`` is not between 0 and ``n``.
    """
    if n <= 0:
        raise ValueError("a proportion of nothing has no interval")
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} are no proportion")
    rate, spread = hits / n, _Z**2 / n
    middle = (rate + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n)) / (1 + spread)
    return Interval(0.0 if hits == 0 else middle - half, 1.0 if hits == n else middle + half)


def proportion(hits: int, n: int) -> Estimate:
    """A proportion with its Wilson interval.  Raises ValueError as :func:`wilson` does."""
    interval = wilson(hits, n)
    return Estimate(hits / n, interval.low, interval.high, n)


def clustered_proportion(outcomes: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """A proportion of outcomes that come in clusters, such as prompts of which several stand in one text.

    Wilson's interval at the number of independent outcomes that these are worth: it has a width at 0 and at 1 too,
    where a bootstrap of clusters has none.

    Source: Korn & Graubard 1998 (Survey Methodology 24, 193-201) for that number; Franco, Little, Louis & Slud 2019
    (Journal of Survey Statistics and Methodology 7, 334-364) for Wilson's interval at it.

    Args:
        outcomes: 0 or 1 each.
        clusters: a label for each.

    Raises:
        ValueError: There are none, one is neither 0 nor 1, or the labels do not fit.
    """
    if not set(outcomes) <= {0.0, 1.0}:
        raise ValueError("a proportion is of outcomes that are 0 or 1")
    worth = _worth(outcomes, clusters)
    rate = math.fsum(outcomes) / len(outcomes)
    interval = wilson(rate * worth, worth)
    return Estimate(rate, interval.low, interval.high, len(outcomes))


def _worth(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """How many independent values clustered ones are worth, at most as many as there are.

    That is their number over the design effect, and less where few clusters say little of that effect (Student's t):
    those are few in which the rarer outcome stands.  Where all values are equal, as where there is one cluster,
    nothing is known of it, and they are worth their clusters.
    """
    from scipy.stats import t

    n = len(values)
    if n != len(clusters) or n == 0:
        raise ValueError(f"each of some values needs a cluster, not {n} values and {len(clusters)} labels")
    mean = math.fsum(values) / n
    sums: dict[Hashable, float] = {}
    for value, label in zip(values, clusters, strict=True):
        sums[label] = sums.get(label, 0.0) + value - mean
    count = len(sums)
    if count == 1 or min(values) == max(values):
        return float(count)
    plain = math.fsum((value - mean) ** 2 for value in values)
    between = math.fsum(total**2 for total in sums.values()) * count / (count - 1)
    commonest = Counter(values).most_common(1)[0][0]
    rare = len({label for value, label in zip(values, clusters, strict=True) if value != commonest})
    few, fewest = (
        (_Z / float(t.ppf((1 + LEVEL) / 2, freedom))) ** 2 for freedom in (count - 1, min(rare, count - 1))
    )
    known = n * min(1.0, plain / between if between else 1.0)
    return known * few if rare >= RARE else max(known * fewest, min(known, count) * few)


RARE = 10
"""In fewer clusters than this an outcome is too rare for its spread over clusters to be known."""


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean of ``after`` minus mean of ``before``, for outcomes from 0 to 1 on the same prompts.

    The interval is Tango's score interval (1998, Statistics in Medicine 17, 891-908), the paired counterpart of
    Wilson's: it has a width when no pair differs, and stays right when few do.  (Adding 1/2 to each cell, as in
    Agresti & Min 2005, covers a change from 0 to 2 % only 86 times in 100 at n = 100.)

    An outcome between 0 and 1 (a share of several tries) counts as that share of a gained or lost pair.  It
    varies less than such a pair would, so the interval is then wider than it has to be, never narrower.

    Args:
        before: an outcome for each prompt.
        after: an outcome for each prompt, in the same order.
        clusters: a label for each prompt, where they come in clusters: the interval is then that of as many prompts as
            these are worth, as in :func:`clustered_proportion`.

    Raises:
        ValueError: The two differ in length, are empty, or hold anything below 0 or above 1.
    """
    n = len(before)
    if n != len(after) or n == 0:
        raise ValueError(f"pairs need two equally long, non-empty sides, not {n} and {len(after)}")
    if not all(0 <= outcome <= 1 for outcome in (*before, *after)):
        raise ValueError("paired_difference takes outcomes from 0 to 1; use mean_interval on the differences")
    gained = math.fsum(max(0.0, a - b) for b, a in zip(before, after, strict=True))
    lost = math.fsum(max(0.0, b - a) for b, a in zip(before, after, strict=True))
    value, worth = (gained - lost) / n, float(n)
    if clusters is not None:
        worth = _worth([a - b for b, a in zip(before, after, strict=True)], clusters)
        gained, lost = gained / n * worth, lost / n * worth
    return Estimate(value, _tango_low(lost, gained, worth), -_tango_low(gained, lost, worth), n)


@cache
def _tango_low(lost: float, gained: float, n: float) -> float:
    """The lower end: the difference that lies a score of ``_Z`` below what was seen."""
    from scipy.optimize import brentq

    def beyond(difference: float) -> float:
        # The share of lost pairs that is likeliest if this is the difference (Tango 1998, equation 5).
        linear = (2 * n - gained + lost) * difference - lost - gained
        constant = -lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * max(0.0, 2 * share + difference * (1 - difference))
        return gained - lost - n * difference - _Z * math.sqrt(variance)

    # Without discordant pairs the value itself is a root too: the search ends just below it.
    return -1.0 if lost == n else float(brentq(beyond, -1.0, (gained - lost) / n - 1e-9))


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean with a percentile bootstrap interval, for outcomes that are not 0/1.

    Draws are fixed: equal values give equal ends.  Where all values are equal (one value included) the data
    hold no information about their spread and both ends are that value.

    Raises:
        ValueError: There are no values, or one is not a finite number.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if not values or not all(map(math.isfinite, values)):
        raise ValueError("a mean needs at least one value, and finite ones")
    mean = math.fsum(values) / len(values)
    if min(values) == max(values):
        return Estimate(values[0], values[0], values[0], len(values))
    ends = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _CELLS_AT_ONCE // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(mean, float(ends.low), float(ends.high), len(values))


def mean_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Mean of ``after`` minus mean of ``before``, which were asked different things, with Welch's interval.

    Raises:
        ValueError: One of the two has fewer than two values.
    """
    from scipy.stats import ttest_ind

    if min(len(before), len(after)) < 2:
        raise ValueError("a difference of means needs two values on each side")
    value = math.fsum(after) / len(after) - math.fsum(before) / len(before)
    n = len(before) + len(after)
    if len(set(before)) == len(set(after)) == 1:
        return Estimate(value, value, value, n)
    ends = ttest_ind(after, before, equal_var=False).confidence_interval(LEVEL)
    return Estimate(value, float(ends.low), float(ends.high), n)


def calibration_error(probabilities: Sequence[float]) -> tuple[float, float]:
    """How far stated probabilities are from how often they come true, and how far perfect ones would seem at this n.

    The first is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599), in ten bins of equal width
    between one half and one.  It is never 0 on a sample, so beside it stands what it comes to on average for outcomes
    that are drawn from the stated probabilities themselves (fixed draws).

    Args:
        probabilities: of pairs whose first member is the better one, the probability that was given to that.

    Raises:
        ValueError: There are none.
    """
    import numpy as np

    if not probabilities:
        raise ValueError("no probabilities, no calibration")
    stated = np.asarray(probabilities, dtype=float)
    sure = np.maximum(stated, 1 - stated)
    bins = np.minimum(((sure - 0.5) * 2 * _BINS).astype(int), _BINS - 1)
    member = np.eye(_BINS)[bins]

    def error(came_true: Any) -> Any:
        return np.abs((came_true - sure) @ member).sum(axis=-1) / len(sure)

    rng = np.random.default_rng(0)
    drawn = rng.random((_DRAWS, len(sure))) < sure
    return float(error((stated > 0.5).astype(float))), float(error(drawn.astype(float)).mean())


def clustered_mean(values: Sequence[float], *axes: Sequence[Hashable]) -> Estimate:
    """The mean with a percentile interval of the bootstrap that draws whole clusters, on each axis by itself.

    Source: the pigeonhole bootstrap, Owen 2007 (Annals of Applied Statistics 1, 386-411): a value counts as often as
    its cluster was drawn on one axis, times as often as on the next.  An axis with one cluster adds no spread, and
    one with few too little.  Draws are fixed: equal values give equal ends.

    Args:
        values: outcomes, of any size.
        axes: one to five axes of clusters, each with a label for every value.

    Raises:
        ValueError: There are no values, one is not finite, or the axes do not fit.
    """
    import numpy as np

    if not values or not all(map(math.isfinite, values)):
        raise ValueError("a mean needs at least one value, and finite ones")
    if not 1 <= len(axes) <= 5 or any(len(axis) != len(values) for axis in axes):
        raise ValueError("a label for every value is needed, on one to five axes")
    places = [np.unique([repr(label) for label in axis], return_inverse=True)[1] for axis in axes]
    sums, counts = np.zeros((2, *(place.max() + 1 for place in places)))
    np.add.at(sums, tuple(places), values)
    np.add.at(counts, tuple(places), 1)
    drawn = _drawn(sums.shape)
    weights, totals = _totals(counts, drawn), _totals(sums, drawn)
    # Where not every pair of clusters has a value, a draw may have none.
    means = totals[weights > 0] / weights[weights > 0]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(math.fsum(values) / len(values), float(low), float(high), len(values))


def _totals(cells: Any, drawn: Sequence[Any]) -> Any:
    """For each draw, the sum over all clusters, each as often as it was drawn: an array (draws)."""
    import numpy as np

    # Axis after axis, the first by matrix product: einsum over all of them at once takes forty times as long.
    totals = np.tensordot(drawn[0].astype(float), cells, 1)
    for often in drawn[1:]:
        totals = np.einsum("bc,bc...->b...", often, totals)
    return totals


@lru_cache(maxsize=8)
def _drawn(sizes: tuple[int, ...]) -> list[Any]:
    """How often each cluster of each axis is drawn: for every axis an array (draws, clusters)."""
    import numpy as np

    # Made once: a run has hundreds of means over the same numbers of clusters.
    rng = np.random.default_rng(0)
    return [rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) for size in sizes]
