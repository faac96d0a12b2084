from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom, binomtest

from onspect.calibration.metrics.image import measure_area_intervals
from onspect.calibration.statistics.intervals import (
    area_interval,
    lower_bound,
    quantile_interval,
    rate_interval,
    upper_bound,
    widen_interval,
)
from onspect.calibration.thresholds import Conformal, MaxFpr, MinRecall, Policy, Quantile
from onspect.runtime.binomial import chances


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 60), (3, 60), (60, 60), (199, 200), (4321, 20_000)])
def test_rates_have_the_intervals_of_clopper_and_pearson(count: int, total: int) -> None:
    """Intervals and one-sided bounds of rates are scipy's exact ones, for few images and for many."""
    expected = binomtest(count, total).proportion_ci(method="exact")
    assert rate_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-9)
    most = binomtest(count, total, alternative="less").proportion_ci(method="exact").high
    least = binomtest(count, total, alternative="greater").proportion_ci(method="exact").low
    assert (lower_bound(count, total), upper_bound(count, total)) == pytest.approx((least, most), abs=1e-9)


@pytest.mark.parametrize(("total", "rate"), [(1, 0.3), (60, 0.02), (5000, 0.999), (7, 0.0), (7, 1.0)])
def test_chances_are_binomial(total: int, rate: float) -> None:
    """The chance of each number is scipy's, at the ends too."""
    assert chances(total, rate) == pytest.approx(binom.pmf(np.arange(total + 1), total, rate), abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.98, 0.999])
@pytest.mark.parametrize("count", [10, 60, 137])
def test_quantile_lies_between_the_scores_as_often_as_promised(count: int, share: float) -> None:
    """The probability that the interval contains the quantile, known from the binomial law, is at least 95%."""
    low, high = quantile_interval(np.arange(count, dtype=float), share)
    fewest, most = 0 if low == -math.inf else low + 1, count if high == math.inf else high
    assert binom.cdf(most, count, share) - binom.cdf(fewest - 1, count, share) >= 0.95


def test_so_few_good_images_give_no_upper_end() -> None:
    """Sixty good images bound a cut for 2% false rejects below only, one for 20% on both sides."""
    good, defective = np.arange(60.0), np.arange(30.0, 70.0)
    low, high = MaxFpr(0.02).interval(good, defective) or ()
    assert (low, high) == (55.0, math.inf)
    low, high = MaxFpr(0.2).interval(good, defective) or ()
    assert low < 48.0 < high < 60.0


def test_so_few_defects_give_no_lower_end() -> None:
    """Forty defective images bound a cut for a recall of 99% above only."""
    policy = MinRecall(0.99)
    low, high = policy.interval(np.arange(60.0), np.arange(30.0, 70.0)) or ()
    assert (low, high) == (-math.inf, 32.0)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [MaxFpr, MinRecall, Quantile, Conformal])
def test_interval_holds_the_threshold(kind: Callable[[float], Policy], rate: float) -> None:
    """The threshold itself is within its interval, with tied scores too."""
    random = np.random.default_rng(4)
    good, defective = np.round(random.normal(0, 1, 50), 1), np.round(random.normal(1, 1, 30), 1)
    policy = kind(rate)
    low, high = policy.interval(good, defective) or (math.nan, math.nan)
    assert low <= policy.choose(good, defective) <= high


def test_perfect_separation_is_not_certainty() -> None:
    """If all defects score above all good images, the areas' intervals are wide, and narrower with more images."""
    few = measure_area_intervals(np.arange(20.0), np.arange(30.0, 40.0))
    many = measure_area_intervals(np.arange(200.0), np.arange(300.0, 400.0))
    for name in ("auroc", "aupr"):
        assert few[name][0] < many[name][0] < few[name][1] == 1.0
    assert few["auroc"][0] < 0.9 < 0.98 < many["auroc"][0]


@pytest.mark.parametrize(("good", "defective"), [(10, 5), (40, 20), (100, 20), (300, 10)])
@pytest.mark.parametrize(("shift", "spread"), [(0.5, 1.0), (2.5, 1.0), (3.5, 1.0), (2.0, 0.5)])
def test_area_interval_covers_the_true_auroc(good: int, defective: int, shift: float, spread: float) -> None:
    """Of simulated sets of images, 93% at least have an interval that covers the true AUROC."""
    true = float(ndtr(shift / math.sqrt(1.0 + spread**2)))
    random = np.random.default_rng(good)
    covered = 0
    for _ in range(150):
        low, high = area_interval(random.normal(0, 1, good), random.normal(shift, spread, defective))
        covered += low <= true <= high
    assert covered >= 0.93 * 150


def test_area_interval_is_narrow_where_scores_nearly_part() -> None:
    """One good image above some defects of many is no reason for an interval of a fifth."""
    good, defective = np.append(np.arange(59.0), 71.5), np.arange(70.0, 110.0)
    low, high = measure_area_intervals(good, defective)["auroc"]
    assert 0.92 < low < 0.999 < high <= 1.0


def test_areas_stay_within_0_and_1() -> None:
    """Close to perfect separation the interval's upper end stays at most 1."""
    good, defective = np.append(np.arange(59.0), 100.5), np.arange(70.0, 110.0)
    low, high = measure_area_intervals(good, defective)["aupr"]
    assert 0.0 < low < high <= 1.0


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((3.5, 4.5), (2.0, 6.0)), ((3.0, 4.0), (1.0, 6.0)), ((1.5, 6.5), (1.0, 7.0)), ((0.5, 9.0), (0.5, 9.0))],
)
def test_interval_goes_on_by_two_scores(interval: tuple[float, float], expected: tuple[float, float]) -> None:
    """Each end moves two different scores outwards, at most to the last one, and never inwards."""
    scores = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert widen_interval(interval, scores) == expected
