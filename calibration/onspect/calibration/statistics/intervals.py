"""Confidence intervals and bounds of rates, quantiles and areas."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from onspect.runtime import binomial
from onspect.runtime.binomial import chances, rate_bound

Interval = tuple[float, float]
"""Lower and upper end. An end without a bound is infinite."""

CONFIDENCE = binomial.CONFIDENCE
"""Confidence of every interval and bound."""

TAIL = (1.0 - CONFIDENCE) / 2.0
"""Probability beyond each end of a two-sided interval."""

_WIDER = 2  # scores by which a bootstrap interval of a threshold is widened at each end
_Z = 1.959963984540054  # quantile of the normal distribution at 1 - TAIL


def rate_interval(count: int, total: int) -> Interval:
    """Return the two-sided Clopper-Pearson interval of a rate.

    It is exact and conservative: it contains the true rate in at least `CONFIDENCE` of all cases (Clopper and Pearson
    1934).

    Parameters
    ----------
    count
        Number of images with the property, 0 to total.
    total
        Number of images, 1 or more.

    Returns
    -------
    Interval
        Lower and upper end, 0 to 1.

    Examples
    --------
    >>> rate_interval(0, 60)[0]
    0.0
    """
    return 1.0 - rate_bound(total - count, total, 1.0 - TAIL), rate_bound(count, total, 1.0 - TAIL)


def upper_bound(count: int, total: int) -> float:
    """Return the one-sided upper bound of a rate, with confidence `CONFIDENCE`.

    Parameters
    ----------
    count
        Number of images with the property, 0 to total.
    total
        Number of images, 0 or more.

    Returns
    -------
    float
        Share of 1.

    Examples
    --------
    >>> round(upper_bound(0, 60), 3)
    0.049
    """
    return rate_bound(count, total)


def lower_bound(count: int, total: int) -> float:
    """Return the one-sided lower bound of a rate, with confidence `CONFIDENCE`.

    Parameters
    ----------
    count
        Number of images with the property, 0 to total.
    total
        Number of images, 0 or more.

    Returns
    -------
    float
        Share of 1.

    Examples
    --------
    >>> round(lower_bound(60, 60), 3)
    0.951
    """
    return 1.0 - rate_bound(total - count, total)


def quantile_interval(scores: NDArray[np.float64], share: float) -> Interval:
    """Return the confidence interval of a quantile of all such scores. Its ends are two of the scores.

    It is exact and conservative for every distribution: the number of scores below the quantile is binomial (David and
    Nagaraja, "Order Statistics", 2003, section 7.1).

    Parameters
    ----------
    scores
        Scores, float64 [n].
    share
        Share of all such scores below the quantile, 0 to 1.

    Returns
    -------
    Interval
        Lower and upper end. An end is infinite if the scores are too few to bound it.

    Examples
    --------
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
    """Return the interval with the middle `CONFIDENCE` of the bootstrap samples of a statistic.

    Parameters
    ----------
    values
        The statistic for each sample, float64 [draws].

    Returns
    -------
    Interval
        Lower and upper end.
    """
    low, high = np.quantile(values, [TAIL, 1.0 - TAIL])
    return float(low), float(high)


def widen_interval(interval: Interval, scores: NDArray[np.float64]) -> Interval:
    """Widen the bootstrap interval of a threshold by two scores at each end, or to the last score.

    Bootstrap samples contain only cuts between the observed scores: any threshold between two of them gives equal
    verdicts. Without this step, the interval is too narrow for few images and for kinds with little overlap
    (`benchmarks/guarantees.py`).

    Parameters
    ----------
    interval
        Interval from the bootstrap.
    scores
        Scores of all images, float64 [n].

    Returns
    -------
    Interval
        Lower and upper end.
    """
    ordered = np.unique(scores)
    low = int(np.searchsorted(ordered, interval[0], side="left")) - _WIDER
    high = int(np.searchsorted(ordered, interval[1], side="right")) - 1 + _WIDER
    return (
        min(interval[0], float(ordered[max(low, 0)])),
        max(interval[1], float(ordered[min(high, len(ordered) - 1)])),
    )


def log_odds_interval(value: float, draws: NDArray[np.float64], step: float) -> Interval:
    """Return the interval of an area from the spread of its bootstrap samples, on the scale of log-odds.

    The spread is that of the samples themselves, converted by the slope of the log-odds at the area. The log-odds of a
    sample of 1 would be infinite, and a few such samples would decide. On this scale, no end leaves 0 to 1.

    The interval also includes the middle `CONFIDENCE` of the samples. Otherwise its coverage is too low for the AUPR.

    Parameters
    ----------
    value
        The area, 0 to 1.
    draws
        The area of each sample, float64 [draws].
    step
        Smallest change of the area that the number of images allows. A value closer than half of it to 0 or 1 is moved
        to that distance.

    Returns
    -------
    Interval
        Lower and upper end, 0 to 1.
    """
    kept = min(max(value, step / 2.0), 1.0 - step / 2.0)
    odds = math.log(kept) - math.log1p(-kept)
    reach = _Z * float(draws.std()) / (kept * (1.0 - kept))
    low, high = (1.0 / (1.0 + math.exp(-max(-700.0, odds + side * reach))) for side in (-1.0, 1.0))
    drawn = percentile_interval(draws)
    return min(low, value, drawn[0]), max(high, value, drawn[1])


def area_interval(good: NDArray[np.float64], defective: NDArray[np.float64]) -> Interval:
    """Return the interval of the AUROC of two sets of scores, each with at least one score.

    Each end is the farther one of two intervals. The first is that of DeLong et al. on the scale of log-odds
    ("Comparing the areas under two or more correlated ROC curves", Biometrics 44, 1988). The second is
    `separated_interval`. The first alone is too narrow for few defective images, the second for scores of unequal
    spread (tests simulate the coverage).

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].

    Returns
    -------
    Interval
        Lower and upper end, 0 to 1.

    Examples
    --------
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
    """Return the share of the others below each score. Equal ones count half."""
    ordered = np.sort(others)
    sides = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(sides / (2.0 * len(others)))


def separated_interval(auroc: float, good: int, defective: int) -> Interval:
    """Return the interval of an AUROC from the number of images alone.

    It is for scores that separate good from defective images completely, because bootstrap samples then have no spread.
    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", part 2, method 5,
    Statistics in Medicine 25 (2006).

    Parameters
    ----------
    auroc
        AUROC of the images, 0 to 1.
    good
        Number of good images, 1 or more.
    defective
        Number of defective images, 1 or more.

    Returns
    -------
    Interval
        Lower and upper end, 0 to 1.

    Examples
    --------
    >>> [round(end, 2) for end in separated_interval(1.0, 60, 40)]
    [0.96, 1.0]
    """
    area = np.linspace(0.0, 1.0, 10_001)[1:-1]
    half = (good + defective) / 2.0 - 1.0
    spread = 1.0 + half * (1.0 - area) / (2.0 - area) + half * area / (1.0 + area)
    held = area[np.abs(area - auroc) <= _Z * np.sqrt(area * (1.0 - area) * spread / (good * defective))]
    return float(min(held[0], auroc)), float(max(held[-1], auroc))


def normal_aupr(auroc: float, share: float) -> float:
    """Return the average precision that belongs to an AUROC if scores are normal with equal spread.

    Parameters
    ----------
    auroc
        AUROC, 0 to 1.
    share
        Share of defective images, 0 to 1.

    Returns
    -------
    float
        Average precision, 0 to 1.

    Examples
    --------
    >>> normal_aupr(0.5, 0.4)
    0.4
    """
    normal = NormalDist()
    shift = math.sqrt(2.0) * normal.inv_cdf(min(max(auroc, 1e-300), 1.0 - 2**-53))  # infinite at the ends
    recall = (np.arange(2_000) + 0.5) / 2_000
    rejected = np.array([normal.cdf(normal.inv_cdf(place) - shift) for place in recall.tolist()])
    return round(float(np.mean(share * recall / (share * recall + (1.0 - share) * rejected))), 12)
