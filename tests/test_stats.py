"""Intervals against published numbers and by simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from dormant import stats


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_the_published_table(hits: int, n: int, low: float, high: float) -> None:
    interval = stats.wilson(hits, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_right_at_both_ends() -> None:
    z2 = 1.959963984540054**2
    assert stats.wilson(0, 400).low == 0
    assert stats.wilson(0, 400).high == pytest.approx(z2 / (400 + z2))
    assert stats.wilson(400, 400).high == 1
    assert stats.wilson(400, 400).low == pytest.approx(400 / (400 + z2))


@given(st.integers(1, 5000), st.data())
def test_wilson_equals_scipys(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    ends = binomtest(hits, n).proportion_ci(stats.LEVEL, method="wilson")
    assert (stats.wilson(hits, n).low, stats.wilson(hits, n).high) == pytest.approx(tuple(ends), abs=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(hits: int, n: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - some come from SciPy, in its words
        stats.wilson(hits, n)


def test_proportion_has_value_and_n() -> None:
    assert stats.proportion(1, 4).value == 0.25
    assert stats.proportion(1, 4).n == 4
    assert stats.proportion(1, 4).high == stats.wilson(1, 4).high


def test_half_width() -> None:
    assert stats.half_width(stats.Interval(0.25, 0.75)) == 0.25
    assert stats.half_width(stats.Estimate(0.5, 0.4, 0.8, 10)) == pytest.approx(0.2)


def outcomes(lost: int, gained: int, n: int) -> tuple[list[float], list[float]]:
    """0/1 outcomes with so many pairs that go from 1 to 0 and from 0 to 1."""
    same = n - lost - gained
    return [1.0] * lost + [0.0] * gained + [1.0] * same, [0.0] * lost + [1.0] * gained + [1.0] * same


def test_paired_difference_agrees_with_the_textbook() -> None:
    # Fagerland, Lydersen & Laake 2017, Statistical Analysis of Contingency Tables, chapter 8: airway
    # hyper-responsiveness before and after transplantation (Bentur et al. 2009)
    found = stats.paired_difference(*outcomes(lost=7, gained=1, n=21))
    assert found.value == pytest.approx(-0.286, abs=5e-4)
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert found.n == 21


def test_paired_difference_is_close_to_another_good_interval() -> None:
    # Agresti & Min's adjusted Wald interval: PropCIs 0.3-0, diffpropci.mp(b = 40, c = 20, n = 160)
    found = stats.paired_difference(*outcomes(lost=40, gained=20, n=160))
    assert (found.low, found.high) == pytest.approx((-0.21601726, -0.03089632), abs=0.003)
    assert found.value == -20 / 160


def test_paired_difference_without_discordant_pairs_is_as_wide_as_wilson_at_zero() -> None:
    found = stats.paired_difference([1.0] * 100, [1.0] * 100)
    assert found.value == 0
    assert found.high == -found.low == pytest.approx(stats.wilson(0, 100).high, abs=1e-9)


def test_paired_difference_of_all_pairs_follows_from_wilson() -> None:
    found = stats.paired_difference([1.0] * 100, [0.0] * 100)
    assert (found.value, found.low) == (-1, -1)
    assert found.high == pytest.approx(1 - 2 * stats.wilson(100, 100).low, abs=1e-9)


def test_paired_difference_uses_the_pairs() -> None:
    together = stats.paired_difference([1.0, 0.0] * 50, [1.0, 0.0] * 50)
    apart = stats.paired_difference([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert together.value == apart.value == 0
    assert stats.half_width(apart) > 4 * stats.half_width(together)


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([1.0], [1.0, 0.0]), ([1.5], [1.0]), ([math.nan], [1.0])]
)
def test_paired_difference_refuses_other_data(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs need|from 0 to 1"):
        stats.paired_difference(before, after)


def test_shares_of_tries_count_as_shares_of_pairs() -> None:
    thirds = stats.paired_difference([0.0] * 30, [1 / 3] * 30)
    whole = stats.paired_difference([0.0] * 30, [1.0] * 10 + [0.0] * 20)
    assert thirds.value == pytest.approx(1 / 3)
    assert (thirds.low, thirds.high) == pytest.approx((whole.low, whole.high))


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60))
def test_paired_difference_properties(pairs: list[tuple[float, float]]) -> None:
    before, after = (list(side) for side in zip(*pairs, strict=True))
    found, swapped = stats.paired_difference(before, after), stats.paired_difference(after, before)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )


@pytest.mark.parametrize(
    ("lost", "gained"), [(0.1, 0.1), (0.5, 0.02), (0.05, 0.15), (0.3, 0.3), (0.0, 0.02), (0.9, 0.0)]
)
def test_paired_difference_covers_the_truth(lost: float, gained: float) -> None:
    rng, n, runs = random.Random(1), 100, 4000
    covered = 0
    for _ in range(runs):
        draws = [rng.random() for _ in range(n)]
        losses, gains = sum(d < lost for d in draws), sum(lost <= d < lost + gained for d in draws)
        found = stats.paired_difference(*outcomes(losses, gains, n))
        covered += found.low <= gained - lost <= found.high
    assert 0.93 <= covered / runs <= 0.99


def worth(clusters: int) -> float:
    """What as many texts are worth whose answers are all alike, but not all the same."""
    return (clusters - 1) * (t.ppf(0.975, 10**9) / t.ppf(0.975, clusters - 1)) ** 2


def test_answers_that_are_alike_in_each_text_are_worth_their_texts() -> None:
    texts = [i for i in range(20) for _ in range(10)]
    found = stats.clustered_proportion([float(i < 5) for i in texts], texts)
    wanted = stats.wilson(0.25 * worth(20), worth(20))
    assert (found.value, found.n) == (0.25, 200)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    # Without clusters: 50 of 200.
    assert stats.half_width(found) > 2.5 * stats.half_width(stats.wilson(50, 200))


@pytest.mark.parametrize(("hit", "texts"), [(0.0, 10), (1.0, 10), (0.0, 1)])
def test_where_all_answers_are_the_same_there_are_as_many_as_texts(hit: float, texts: int) -> None:
    labels = [i % texts for i in range(200)]
    found = stats.clustered_proportion([hit] * 200, labels)
    wanted = stats.wilson(hit * texts, texts)
    assert (found.low, found.high) == (wanted.low, wanted.high)
    assert stats.clustered_proportion([0.0, 1.0] * 100, [0] * 200).high == stats.wilson(0.5, 1).high


@pytest.mark.parametrize(("texts", "each"), [(61, 23), (69, 3), (20, 10)])
def test_one_hit_more_does_not_make_the_upper_end_fall_far(texts: int, each: int) -> None:
    labels = [i // each for i in range(texts * each)]
    ends = []
    for hits in range(12):
        values = [float(i % each == 0 and i // each < hits) for i in range(len(labels))]
        ends.append(stats.clustered_proportion(values, labels).high)
    # From none to one hit nothing falls; it settles where some texts have one.
    assert ends[1] > 0.95 * ends[0]
    assert ends[11] > stats.wilson(11, len(labels)).high * 0.99


@pytest.mark.parametrize("chance", [0.005, 0.02])
def test_clustered_proportion_is_not_too_sure_of_what_is_rare(chance: float) -> None:
    rng, runs, missed = random.Random(6), 600, 0
    texts = [i for i in range(61) for _ in range(23)]
    for _ in range(runs):
        # Beta-binomial: answers to one text are alike by a third.
        chances = [rng.betavariate(2 * chance, 2 * (1 - chance)) for _ in range(61)]
        found = stats.clustered_proportion([float(rng.random() < chances[i]) for i in texts], texts)
        missed += found.high < chance
    assert missed / runs <= 0.06


def test_the_worth_of_clusters_is_that_of_their_robust_variance() -> None:
    regression = pytest.importorskip("statsmodels.api")
    rng = random.Random(4)
    chances = [rng.random() for _ in range(15)]
    texts = [i for i in range(15) for _ in range(8)]
    values = [float(rng.random() < chances[i]) for i in texts]
    fit = regression.OLS(values, [1.0] * 120).fit(cov_type="cluster", cov_kwds={"groups": texts})
    mean = sum(values) / 120
    few = (t.ppf(0.975, 10**9) / t.ppf(0.975, 14)) ** 2
    n = mean * (1 - mean) / fit.bse[0] ** 2 * few
    found, wanted = stats.clustered_proportion(values, texts), stats.wilson(mean * n, n)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-4)


def test_clustered_proportion_covers_the_truth() -> None:
    rng, runs, covered, plain = random.Random(5), 1000, 0, 0
    for _ in range(runs):
        hits = [float(rng.random() < 0.2) for _ in range(20) for _ in range(1)]
        values, texts = [hit for hit in hits for _ in range(10)], [i for i in range(20) for _ in range(10)]
        found = stats.clustered_proportion(values, texts)
        covered += found.low <= 0.2 <= found.high
        usual = stats.wilson(round(sum(values)), 200)
        plain += usual.low <= 0.2 <= usual.high
    assert covered / runs >= 0.93
    assert plain / runs < 0.6


@pytest.mark.parametrize(("outcomes", "labels"), [([], []), ([1.0], [0, 1]), ([0.5], [0])])
def test_clustered_proportion_refuses_what_is_none(outcomes: list[float], labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"needs a cluster|0 or 1"):
        stats.clustered_proportion(outcomes, labels)


def test_paired_answers_that_are_alike_in_each_text_are_worth_their_texts() -> None:
    texts = [i for i in range(20) for _ in range(10)]
    before, after = [float(i < 10) for i in texts], [float(i < 4) for i in texts]
    found, plain = stats.paired_difference(before, after, texts), stats.paired_difference(before, after)
    assert found.value == plain.value == pytest.approx(-0.3)
    # Tango's interval for as many pairs, of each of which 0.3 is lost; the worth lies between these whole ones.
    fewer, more = (stats.paired_difference([0.3] * n, [0.0] * n) for n in (16, 17))
    assert 16 < worth(20) < 17
    assert fewer.low < found.low < more.low < more.high < found.high < fewer.high
    assert stats.half_width(found) > 2.5 * stats.half_width(plain)
    same = stats.paired_difference(before, before, texts)
    assert (same.low, same.high) == pytest.approx(
        (stats.paired_difference([0.0] * 20, [0.0] * 20).low, -same.low)
    )


def test_mean_difference_is_welchs() -> None:
    before, after = [1.0, 2.0, 3.0], [4.0, 6.0, 8.0, 10.0]
    found = stats.mean_difference(before, after)
    # By hand, with the degrees of freedom of Welch and Satterthwaite.
    spread = math.sqrt(1 / 3 + 20 / 12)
    freedom = (1 / 3 + 20 / 12) ** 2 / ((1 / 3) ** 2 / 2 + (20 / 12) ** 2 / 3)
    assert (found.value, found.n) == (5.0, 7)
    assert found.high - found.value == pytest.approx(t.ppf(0.975, freedom) * spread)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert stats.mean_difference([1.0, 1.0], [2.0, 2.0]).low == 1.0
    with pytest.raises(ValueError, match="two values"):
        stats.mean_difference([1.0], after)


def test_mean_interval_agrees_with_the_normal_one_on_many_values() -> None:
    rng = random.Random(2)
    values = [rng.gauss(10, 3) for _ in range(1000)]
    found = stats.mean_interval(values)
    mean = sum(values) / 1000
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 1000 / 1000)
    assert found.value == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx(
        (mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error
    )
    assert found.n == 1000


def test_mean_interval_is_repeatable_and_handles_many_values() -> None:
    values = [float(i % 7) for i in range(20_000)]
    assert stats.mean_interval(values) == stats.mean_interval(values)


@pytest.mark.parametrize("values", [[2.5], [0.0] * 50, [-1 / 3] * 9])
def test_mean_interval_of_equal_values_has_no_width(values: list[float]) -> None:
    assert stats.mean_interval(values) == stats.Estimate(values[0], values[0], values[0], len(values))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_mean_interval_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        stats.mean_interval(values)
