"""What a rate is at most and at least after so many images: exact binomial bounds, with numpy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Of every interval and bound: the share of repetitions in which it holds the true value."""

_HALVINGS = 60  # more than a float64 has bits


def chances(total: int, rate: float) -> NDArray[np.float64]:
    """Return how probable each number of `total` is, 0 to `total`, where each of them has the chance `rate`.

    >>> chances(2, 0.5).tolist()
    [0.25, 0.5, 0.25]
    """
    found = np.zeros(total + 1)
    if rate <= 0.0 or rate >= 1.0:
        found[0 if rate <= 0.0 else total] = 1.0
        return found
    return np.asarray(np.exp(_log_ways(total) + _log_weights(total, rate)))


def rate_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Return what a rate is at most, with one-sided confidence, after count of total (Clopper and Pearson 1934).

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
    """Return the logarithms of the binomial coefficients, which themselves would overflow."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    return np.asarray(factorials[-1] - factorials - factorials[::-1])


def _log_weights(total: int, rate: float) -> NDArray[np.float64]:
    numbers = np.arange(total + 1)
    return np.asarray(numbers * math.log(rate) + (total - numbers) * math.log1p(-rate))
