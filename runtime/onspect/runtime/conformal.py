"""Thresholds from quantiles of the scores of good parts, and the conformal promise.

A part is ``ng`` if score >= threshold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError

Scores = NDArray[Any]
"""Scores of images, float [n], finite; higher is worse."""


CROSS_CONFORMAL = "cross-conformal"
"""Policy of a threshold that teaching chose: each picture is judged by a memory without it."""


def format_rate(rate: float) -> str:
    """Return a share in percent, without insignificant digits.

    Parameters
    ----------
    rate
        The share, 0 to 1.

    Returns
    -------
    str
        Such as ``0.5%`` for 0.005.
    """
    return f"{rate * 100:.10g}%"


def quantile(good: Scores, rate: float) -> float:
    """Return the lowest threshold that lets at least the share `rate` of the good images pass.

    Of n good images the k = ceil(rate * n) lowest pass. The threshold is midway between the k-th and the next
    higher good score. If k is n, it is the next float64 above the highest score. Scores equal to the k-th pass as
    well.

    Parameters
    ----------
    good
        Scores of good images, float [n].
    rate
        Share that passes, above 0 and up to 1.

    Returns
    -------
    float
        The threshold.

    Examples
    --------
    >>> quantile(np.array([1.0, 2.0, 3.0, 4.0]), 0.75)
    3.5
    """
    thresholds = candidates(good)
    passed = len(good) - count_reaching(good, thresholds)
    return float(thresholds[np.argmax(passed / len(good) >= rate)])


def conformal(good: Scores, rate: float) -> float:
    """Return a threshold that rejects a new good part with a probability of at most `rate`, whatever the scores.

    Of n good scores the k = ceil((n + 1) * (1 - rate)) lowest pass. The threshold is midway to the next higher
    score. The promise is true on average over calibration sets, for parts with the distribution of the
    calibration's. It is split conformal prediction (Vovk et al., "Algorithmic Learning in a Random World", 2005).

    Parameters
    ----------
    good
        Scores of good parts, float [n].
    rate
        Share of new good parts that may be rejected, between 0 and 1.

    Returns
    -------
    float
        The threshold.

    Raises
    ------
    DatasetError
        If n is too small for the promise: k would be above n.

    Examples
    --------
    >>> conformal(np.arange(1.0, 20.0), 0.1)
    18.5
    """
    check_conformal(len(good), rate)
    return quantile(good, conformal_share(len(good), rate))


def conformal_share(count: int, rate: float) -> float:
    """Return the share of the good scores that must pass for the conformal promise.

    Parameters
    ----------
    count
        Number of good scores, 1 or more.
    rate
        Share of new good parts that may be rejected, between 0 and 1.

    Returns
    -------
    float
        The share; above 1 if there are too few scores.
    """
    return conformal_rank(count, rate) / count


def conformal_rank(count: int, rate: float) -> int:
    """Return the number of good scores that must pass for the conformal promise.

    Parameters
    ----------
    count
        Number of good scores.
    rate
        Share of new good parts that may be rejected, between 0 and 1.

    Returns
    -------
    int
        The number; above count if there are too few scores.
    """
    return math.ceil(round((count + 1) * (1.0 - rate), 9))  # (n + 1) * 0.9 may be 18.000000000000004


def check_conformal(count: int, rate: float, option: str = "--conformal", noun: str = "images") -> None:
    """Check that the number of good images can support a rate.

    Parameters
    ----------
    count
        Number of good images.
    rate
        Share of new good parts that may be rejected, between 0 and 1.
    option, noun
        The option that asks for the rate, and the word for images, for the message.

    Raises
    ------
    DatasetError
        If there are too few images.
    """
    if conformal_rank(count, rate) > count:
        needed = math.ceil(round(1.0 / rate, 9)) - 1
        raise DatasetError(
            f"{option} {format_rate(rate)} needs at least {needed} good {noun} to promise that, and there are "
            f"{count}: add {needed - count}, or ask for {format_rate(math.ceil(1e4 / (count + 1)) / 1e4)} or more"
        )


def candidates(scores: Scores) -> NDArray[np.float64]:
    """Return every useful threshold of scores.

    Parameters
    ----------
    scores
        float [n], at least one.

    Returns
    -------
    NDArray[np.float64]
        float64 [m], ascending: the lowest score, the middles between different scores, and the next value above
        the highest.
    """
    distinct = np.unique(np.asarray(scores, np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle > lower, middle, upper)  # neighbouring float64 have no middle
    return np.concatenate([distinct[:1], middle, [np.nextafter(distinct[-1], np.inf)]])


def count_reaching(scores: Scores, thresholds: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return how many scores are >= each threshold.

    Parameters
    ----------
    scores
        float [n].
    thresholds
        float64 [m].

    Returns
    -------
    NDArray[np.intp]
        int [m].
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    return np.asarray(len(ordered) - np.searchsorted(ordered, thresholds, side="left"), np.intp)
