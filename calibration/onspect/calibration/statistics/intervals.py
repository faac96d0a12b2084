"""How sure a figure is, from how many images stand behind it."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from onspect.runtime import binomial
from onspect.runtime.binomial import chances, rate_bound

Interval = tuple[float, float]
"""Lower and upper end; infinite where it has none."""

CONFIDENCE = binomial.CONFIDENCE
"""Of every interval and bound."""

TAIL = (1.0 - CONFIDENCE) / 2.0
"""What lies beyond each end of a two-sided interval."""

_WIDER = 2  # scores by which a bootstrap interval of a threshold goes on at each end
_Z = 1.959963984540054  # of the normal distribution, at 1 - TAIL


def rate_interval(count: int, total: int) -> Interval:
    """Return the two-sided Clopper-Pearson interval of a rate, count of total; total is at least 1.

    Exact and cautious: it holds the true rate in at least `CONFIDENCE` of all cases (Clopper and Pearson 1934).

    >>> rate_interval(0, 60)[0]
    0.0
    """
    return 1.0 - rate_bound(total - count, total, 1.0 - TAIL), rate_bound(count, total, 1.0 - TAIL)


def upper_bound(count: int, total: int) -> float:
    """Return what a rate is at most, with one-sided confidence `CONFIDENCE`, after count of total.

    >>> round(upper_bound(0, 60), 3)
    0.049
    """
    return rate_bound(count, total)


def lower_bound(count: int, total: int) -> float:
    """Return what a rate is at least, with one-sided confidence `CONFIDENCE`, after count of total.

    >>> round(lower_bound(60, 60), 3)
    0.951
    """
    return 1.0 - rate_bound(total - count, total)


def quantile_interval(scores: NDArray[np.float64], share: float) -> Interval:
    """Return two of the scores that the quantile of all such scores, `share` of which lie below it, lies between.

    Exact and cautious, whatever the distribution: how many of n scores lie below the quantile is binomial (David and
    Nagaraja, "Order Statistics", 2003, section 7.1). An end is infinite where so few scores cannot bound it. share is 0
    to 1.

    >>> quantile_interval(np.arange(1.0, 61.0), 0.9)
    (49.0, 59.0)
    >>> quantile_interval(np.arange(1.0, 61.0), 0.98)
    (56.0, inf)
    """
    ordered, below = np.sort(scores), chances(len(scores), share)
    low = int(np.count_nonzero(np.cumsum(below) <= TAIL))
    high = len(scores) - int(np.count_nonzero(np.cumsum(below[::-1]) <= TAIL))
    return (
        float(ordered[low - 1]) if low else -math.inf,
        float(ordered[high]) if high < len(scores) else math.inf,
    )


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """Return the interval of a statistic that holds the middle `CONFIDENCE` of its draws, [draws]."""
    low, high = np.quantile(values, [TAIL, 1.0 - TAIL])
    return float(low), float(high)


def widen_interval(interval: Interval, scores: NDArray[np.float64]) -> Interval:
    """Return a bootstrap interval of a threshold, each end moved on by two of the scores, or to the last one.

    Draws with replacement know no cut but those between the scores themselves: wherever a threshold lies between two,
    it judges these images alike. Without it the interval of few images, or of kinds that hardly overlap, is too narrow
    (`benchmarks/guarantees.py`).
    """
    ordered = np.unique(scores)
    low = int(np.searchsorted(ordered, interval[0], side="left")) - _WIDER
    high = int(np.searchsorted(ordered, interval[1], side="right")) - 1 + _WIDER
    return (
        min(interval[0], float(ordered[max(low, 0)])),
        max(interval[1], float(ordered[min(high, len(ordered) - 1)])),
    )


def log_odds_interval(value: float, draws: NDArray[np.float64], step: float) -> Interval:
    """Return the interval of an area, 0 to 1, from the bootstrap's spread, on the scale of the area's log-odds.

    The spread is that of the draws themselves, brought to that scale by its slope at the area: the log-odds of a draw
    of 1 are infinite, and a few of them would decide. The middle `CONFIDENCE` of the draws is within the interval too:
    the area under PR was covered too seldom without. On that scale the ends cannot leave 0 to 1. step is the least by
    which an area of so many images can change; an area within half of it of 0 or 1 counts as that far from it.
    """
    kept = min(max(value, step / 2.0), 1.0 - step / 2.0)
    odds = math.log(kept) - math.log1p(-kept)
    reach = _Z * float(draws.std()) / (kept * (1.0 - kept))
    low, high = (1.0 / (1.0 + math.exp(-max(-700.0, odds + side * reach))) for side in (-1.0, 1.0))
    drawn = percentile_interval(draws)
    return min(low, value, drawn[0]), max(high, value, drawn[1])


def area_interval(good: NDArray[np.float64], defective: NDArray[np.float64]) -> Interval:
    """Return the interval of the AUROC of two sets of scores, of which neither is empty.

    It reaches as far as the wider of two at each end: that of DeLong et al., "Comparing the areas under two or more
    correlated ROC curves", Biometrics 44 (1988), on the scale of log-odds, and `separated_interval`. Alone the first
    is too narrow with few defective images, the second with scores of unequal spread (tests simulate the coverage).

    >>> low, high = area_interval(np.arange(20.0), np.arange(15.0, 35.0))
    >>> round(low, 2), round(high, 2)
    (0.84, 0.99)
    """
    of_defective, of_good = _place(defective, good), 1.0 - _place(good, defective)
    auroc = float(of_defective.mean())
    low, high = separated_interval(auroc, len(good), len(defective))
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (of_defective, of_good) if len(part) > 1)
    if not 0.0 < auroc < 1.0 or not variance:
        return low, high
    odds, reach = math.log(auroc / (1.0 - auroc)), _Z * math.sqrt(variance) / (auroc * (1.0 - auroc))
    ends = [1.0 / (1.0 + math.exp(-max(-700.0, odds + side * reach))) for side in (-1.0, 1.0)]
    return min(low, ends[0]), max(high, ends[1])


def _place(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return which share of the others lies below each score; equal ones count half."""
    ordered = np.sort(others)
    sides = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(sides / (2.0 * len(others)))


def separated_interval(auroc: float, good: int, defective: int) -> Interval:
    """Return the interval of an AUROC from the number of images alone, for where drawing them anew shows no spread.

    That is so where the scores part good from defective completely. Newcombe, "Confidence intervals for an effect size
    measure based on the Mann-Whitney statistic", part 2, method 5, Statistics in Medicine 25 (2006).

    >>> [round(end, 2) for end in separated_interval(1.0, 60, 40)]
    [0.96, 1.0]
    """
    area = np.linspace(0.0, 1.0, 10_001)[1:-1]
    half = (good + defective) / 2.0 - 1.0
    spread = 1.0 + half * (1.0 - area) / (2.0 - area) + half * area / (1.0 + area)
    held = area[np.abs(area - auroc) <= _Z * np.sqrt(area * (1.0 - area) * spread / (good * defective))]
    return float(min(held[0], auroc)), float(max(held[-1], auroc))


def normal_aupr(auroc: float, share: float) -> float:
    """Return the average precision of normal scores of equal spread with this AUROC, `share` of them defective.

    >>> normal_aupr(0.5, 0.4)
    0.4
    """
    normal = NormalDist()
    shift = math.sqrt(2.0) * normal.inv_cdf(min(max(auroc, 1e-300), 1.0 - 2**-53))  # infinite at the ends
    recall = (np.arange(2_000) + 0.5) / 2_000
    rejected = np.array([normal.cdf(normal.inv_cdf(place) - shift) for place in recall.tolist()])
    return round(float(np.mean(share * recall / (share * recall + (1.0 - share) * rejected))), 12)
