"""Tests and intervals for the difference of two models on the same images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.statistics.intervals import Interval, percentile_interval
from onspect.runtime.binomial import chances

RESAMPLES = 2000
"""Number of bootstrap samples for an interval."""

_CELLS = 2_000_000  # samples are calculated in batches of about this many numbers


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar, Psychometrika 12, 1947).

    It is the binomial test of whether both numbers are equal.

    Parameters
    ----------
    only_first
        Number of images that only the first model judges correctly.
    only_second
        Number of images that only the second model judges correctly.

    Returns
    -------
    float
        0 to 1; 1 if both numbers are 0.

    Examples
    --------
    >>> round(mcnemar(0, 6), 6), mcnemar(3, 3)
    (0.03125, 1.0)
    """
    total = only_first + only_second
    tail = float(chances(total, 0.5)[: min(only_first, only_second) + 1].sum())
    return min(1.0, 2.0 * tail)


def difference_interval(
    good: NDArray[np.float64], defective: NDArray[np.float64], *, seed: int = 0
) -> tuple[tuple[float, float], Interval | None]:
    """Return the AUROC of two models, and the 95% interval of their difference, first minus second.

    The interval is that of the paired bootstrap: each sample has the same images for both models, with good and
    defective ones drawn separately (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

    Parameters
    ----------
    good
        Scores of the good images by both models, float64 [2, n], n at least 1.
    defective
        Scores of the defective images by both models, float64 [2, m], m at least 1.
    seed
        Seed of the random numbers.

    Returns
    -------
    tuple[tuple[float, float], Interval | None]
        AUROC of both models, and the interval; None if all samples have the same difference.
    """
    random = np.random.default_rng(seed)
    places = [_place(*scores) for scores in zip(good, defective, strict=True)]
    images, defects = good.shape[1], defective.shape[1]
    once = np.ones((1, images), np.int64), np.ones((1, defects), np.int64)
    first, second = (float(_measure(place, *once)[0]) for place in places)
    batch, differences = max(1, _CELLS // (images + defects)), []
    for done in range(0, RESAMPLES, batch):
        count = min(batch, RESAMPLES - done)
        drawn = _draw(random, images, count), _draw(random, defects, count)
        differences.append(_measure(places[0], *drawn) - _measure(places[1], *drawn))
    every = np.concatenate(differences)
    interval = None if np.ptp(every) == 0.0 else percentile_interval(every)
    return (first, second), interval


_Places = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]
"""Good images by score, and for each defective one the number of good ones below it and not above it."""


def _place(good: NDArray[np.float64], defective: NDArray[np.float64]) -> _Places:
    order = np.argsort(good, kind="stable")
    ordered = good[order]
    return order, np.searchsorted(ordered, defective, "left"), np.searchsorted(ordered, defective, "right")


def _draw(random: np.random.Generator, total: int, draws: int) -> NDArray[np.int64]:
    """Return how often each of the images is drawn in each sample, [draws, total]."""
    rows = np.arange(draws)[:, None] * total
    drawn = random.integers(0, total, (draws, total)) + rows
    return np.bincount(drawn.ravel(), minlength=draws * total).reshape(draws, total)


def _measure(places: _Places, good: NDArray[np.int64], defective: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the AUROC of each sample, [draws], from how often each good and defective image was drawn."""
    order, below, not_above = places
    counts = np.cumsum(good[:, order], axis=1)
    counts = np.concatenate([np.zeros((len(counts), 1), np.int64), counts], axis=1)
    won = (defective * (counts[:, below] + counts[:, not_above])).sum(axis=1)
    return np.asarray(won / (2.0 * good.sum(axis=1) * defective.sum(axis=1)))
