"""How sure a figure is, from how many images stand behind it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Interval = tuple[float, float]
"""Lower and upper end."""

CONFIDENCE = 0.95
"""Share of repetitions in which an interval holds the true value, and the confidence of a one-sided bound."""

RESAMPLES = 500
"""Draws of the bootstrap."""


def rate_interval(count: int, total: int) -> Interval:
    """Return the two-sided Clopper-Pearson interval of a rate, count of total; total is at least 1.

    Exact and cautious: it holds the true rate in at least `CONFIDENCE` of all cases (Clopper and Pearson 1934).

    >>> rate_interval(0, 60)[0]
    0.0
    """
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def upper_bound(count: int, total: int) -> float:
    """Return what a rate is at most, with one-sided confidence `CONFIDENCE`, after count of total.

    >>> round(upper_bound(0, 60), 3)
    0.049
    """
    return float(binomtest(count, total, alternative="less").proportion_ci(CONFIDENCE, method="exact").high)


def lower_bound(count: int, total: int) -> float:
    """Return what a rate is at least, with one-sided confidence `CONFIDENCE`, after count of total.

    >>> round(lower_bound(60, 60), 3)
    0.951
    """
    return float(binomtest(count, total, alternative="greater").proportion_ci(CONFIDENCE, method="exact").low)


def percentile_intervals(values: NDArray[np.float64]) -> list[Interval]:
    """Return the interval of each statistic, [draws, statistics], that holds the middle `CONFIDENCE` of its draws."""
    tail = (1.0 - CONFIDENCE) / 2.0
    return [(float(low), float(high)) for low, high in np.quantile(values, [tail, 1.0 - tail], axis=0).T]
