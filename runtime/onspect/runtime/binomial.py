"""Clopper-Pearson bounds of a binomial rate, with numpy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Confidence of every interval and bound: the share of repetitions that include the true value."""

_HALVINGS = 60  # more than the bits of a float64


def chances(total: int, rate: float) -> NDArray[np.float64]:
    """Return the binomial distribution.

    Parameters
    ----------
    total
        Number of trials, 0 or more.
    rate
        Probability of each, 0 to 1.

    Returns
    -------
    NDArray[np.float64]
        Probability of each count from 0 to total, float64 [total + 1].

    Examples
    --------
    >>> chances(2, 0.5).tolist()
    [0.25, 0.5, 0.25]
    """
    found = np.zeros(total + 1)
    if rate <= 0.0 or rate >= 1.0:
        found[0 if rate <= 0.0 else total] = 1.0
        return found
    return np.asarray(np.exp(_log_ways(total) + _log_weights(total, rate)))


def rate_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Return the upper Clopper-Pearson bound of a rate (Clopper and Pearson 1934).

    Parameters
    ----------
    count
        Number of observed events, 0 to total.
    total
        Number of trials, 1 or more.
    confidence
        One-sided confidence, between 0 and 1.

    Returns
    -------
    float
        The largest rate that the observation allows, 0 to 1.

    Examples
    --------
    >>> round(rate_bound(0, 60), 3)
    0.049
    """
    if count >= total:
        return 1.0
    ways, low, high = _log_ways(total)[: count + 1], 0.0, 1.0
    for _ in range(_HALVINGS):
        rate = (low + high) / 2.0
        at_most = float(np.exp(ways + _log_weights(total, rate)[: count + 1]).sum())
        low, high = (rate, high) if at_most > 1.0 - confidence else (low, rate)
    return high


def _log_ways(total: int) -> NDArray[np.float64]:
    """Return the logarithms of the binomial coefficients. The coefficients themselves would overflow."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    return np.asarray(factorials[-1] - factorials - factorials[::-1])


def _log_weights(total: int, rate: float) -> NDArray[np.float64]:
    numbers = np.arange(total + 1)
    return np.asarray(numbers * math.log(rate) + (total - numbers) * math.log1p(-rate))
