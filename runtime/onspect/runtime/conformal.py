"""Quantiles of the scores of good parts as thresholds, and the conformal promise: ``ng`` is score >= threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError

Scores = NDArray[Any]
"""Scores of images, float [n], finite, higher is worse."""


CROSS_CONFORMAL = "cross-conformal"
"""The policy of a threshold that teaching chose: each picture judged by a memory without it."""


def format_rate(rate: float) -> str:
    """Return a share of 1 in percent, such as ``0.5%`` for 0.005, without digits that say nothing."""
    return f"{rate * 100:.10g}%"


def quantile(good: Scores, rate: float) -> float:
    """Return the lowest threshold that lets at least the share `rate` of the good images pass.

    Of n good images the k = ceil(rate * n) lowest pass, and the threshold lies midway between the k-th and the next
    higher good score; where k is n it is the next float64 above the highest. Scores tied with the k-th pass as well.
    rate is above 0, at most 1.

    >>> quantile(np.array([1.0, 2.0, 3.0, 4.0]), 0.75)
    3.5
    """
    thresholds = candidates(good)
    passed = len(good) - count_reaching(good, thresholds)
    return float(thresholds[np.argmax(passed / len(good) >= rate)])


def conformal(good: Scores, rate: float) -> float:
    """Return a threshold that rejects a new good part with a probability of at most `rate`, whatever the scores.

    Of n good scores the k = ceil((n + 1) * (1 - rate)) lowest pass, and the threshold lies midway to the next higher
    one. The promise holds on average over calibration sets, for parts that come as the calibration's did (Vovk et
    al., "Algorithmic Learning in a Random World", 2005, split conformal prediction). rate is above 0 and below 1.
    Raises DatasetError where n is too small for any promise: k would be above n.

    >>> conformal(np.arange(1.0, 20.0), 0.1)
    18.5
    """
    check_conformal(len(good), rate)
    return quantile(good, conformal_share(len(good), rate))


def conformal_share(count: int, rate: float) -> float:
    """Return the share of so many good scores that has to pass for the conformal promise."""
    return conformal_rank(count, rate) / count


def conformal_rank(count: int, rate: float) -> int:
    """Return how many of so many good scores have to pass for the conformal promise."""
    return math.ceil(round((count + 1) * (1.0 - rate), 9))  # (n + 1) * 0.9 may be 18.000000000000004


def check_conformal(count: int, rate: float) -> None:
    """Raise DatasetError where so few good images cannot promise a rate."""
    if conformal_rank(count, rate) > count:
        needed = math.ceil(round(1.0 / rate, 9)) - 1
        raise DatasetError(
            f"--conformal {format_rate(rate)} needs at least {needed} good images to promise that, and there are "
            f"{count}: add {needed - count}, or ask for {format_rate(math.ceil(1e4 / (count + 1)) / 1e4)} or more"
        )


def candidates(scores: Scores) -> NDArray[np.float64]:
    """Return every threshold worth trying, ascending."""
    distinct = np.unique(np.asarray(scores, np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle > lower, middle, upper)  # between neighbouring float64 there is none
    return np.concatenate([distinct[:1], middle, [np.nextafter(distinct[-1], np.inf)]])


def count_reaching(scores: Scores, thresholds: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return how many scores are >= each threshold."""
    ordered = np.sort(np.asarray(scores, np.float64))
    return np.asarray(len(ordered) - np.searchsorted(ordered, thresholds, side="left"), np.intp)
