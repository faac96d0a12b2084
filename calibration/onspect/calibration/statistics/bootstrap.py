"""Bootstrap: resample the images and calculate a statistic for all samples at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.statistics.intervals import (
    Interval,
    area_interval,
    log_odds_interval,
    normal_aupr,
    percentile_interval,
)
from onspect.runtime.binomial import chances
from onspect.runtime.conformal import Scores

RESAMPLES = 500
"""Number of bootstrap samples for an interval."""

_PAIRED_RESAMPLES = 2000  # samples for the difference of two models

_CELLS = 2_000_000
"""Samples are calculated in batches whose counts have about this many numbers."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """Bootstrap samples: images drawn with replacement, good and defective ones separately."""

    scores: NDArray[np.float64]
    """Distinct scores, float64 [k], ascending."""
    good: Counts
    """Number of times that each score was drawn among the good images, int64 [draws, k]."""
    defective: Counts
    """Number of times that each score was drawn among the defective images, int64 [draws, k]."""


def draw_images(good: Scores, defective: Scores, draws: int, *, seed: int = 0) -> Iterator[Draws]:
    """Draw bootstrap samples (Efron 1979). The order of the scores does not matter.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].
    draws
        Number of samples.
    seed
        Seed of the random numbers.

    Returns
    -------
    Iterator[Draws]
        Samples in batches of bounded memory.
    """
    random = np.random.default_rng(seed)
    scores, places = np.unique(np.concatenate([good, defective]).astype(np.float64), return_inverse=True)
    of_good, of_defective = np.sort(places[: len(good)]), np.sort(places[len(good) :])
    batch = max(1, _CELLS // max(1, len(places)))
    for done in range(0, draws, batch):
        count = min(batch, draws - done)
        yield Draws(
            scores,
            _draw(random, of_good, count, len(scores)),
            _draw(random, of_defective, count, len(scores)),
        )


def _draw(random: np.random.Generator, places: NDArray[np.intp], draws: int, size: int) -> Counts:
    """Return how often each of `size` scores is drawn from the images at these places."""
    if not len(places):
        return np.zeros((draws, size), np.int64)
    drawn = places[random.integers(0, len(places), (draws, len(places)))]
    rows = np.arange(draws)[:, None] * size
    return np.bincount((drawn + rows).ravel(), minlength=draws * size).reshape(draws, size)


def measure_drawn_areas(draws: Draws) -> NDArray[np.float64]:
    """Return AUROC and AUPR of each sample, as scikit-learn defines them. There must be good and defective images.

    Parameters
    ----------
    draws
        Bootstrap samples.

    Returns
    -------
    NDArray[np.float64]
        float64 [draws, 2], 0 to 1.
    """
    good, defective = draws.good, draws.defective
    images, defects = good.sum(axis=1), defective.sum(axis=1)
    below = np.cumsum(good, axis=1) - good
    auroc = (defective * (below + 0.5 * good)).sum(axis=1) / (images * defects)
    caught, rejected = count_reaching_drawn(defective)[:, :-1], count_reaching_drawn(good)[:, :-1]
    precision = caught / np.maximum(1, caught + rejected)
    return np.stack([auroc, (defective * precision).sum(axis=1) / defects], axis=1)


def aupr_interval(good: Scores, defective: Scores) -> Interval:
    """Return the 95% interval of the AUPR, by the bootstrap on the scale of log-odds.

    If all samples have the same AUROC, the interval follows from that of the AUROC, as for normal scores. There must be
    good and defective scores.

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
    """
    ((_, aupr),) = measure_drawn_areas(count_images(good, defective)).tolist()
    draws = draw_images(good, defective, RESAMPLES)
    of_auroc, of_aupr = np.concatenate([measure_drawn_areas(batch) for batch in draws]).T
    if np.ptp(of_auroc) == 0.0:
        share = len(defective) / (len(good) + len(defective))
        ends = [normal_aupr(end, share) for end in area_interval(good, defective)]
        return min(aupr, *ends), max(aupr, *ends)
    step = 1.0 / (len(defective) * (len(defective) + 1))  # one good image above the lowest defective one
    return log_odds_interval(min(1.0, aupr), of_aupr, step)


def count_images(good: Scores, defective: Scores) -> Draws:
    """Return the images as a single sample in which each image occurs once.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].

    Returns
    -------
    Draws
        One sample.
    """
    scores, places = np.unique(np.concatenate([good, defective]).astype(np.float64), return_inverse=True)
    of_good, of_defective = (
        np.bincount(part, minlength=len(scores))[None] for part in (places[: len(good)], places[len(good) :])
    )
    return Draws(scores, of_good, of_defective)


def count_reaching_drawn(counts: Counts) -> Counts:
    """Return how many images of each sample reach each score.

    Parameters
    ----------
    counts
        Number of times that each score was drawn, int64 [draws, k].

    Returns
    -------
    Counts
        int64 [draws, k + 1]. The last column is 0: no image exceeds the highest score.
    """
    reached = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([reached, np.zeros((len(counts), 1), np.int64)], axis=1)


def place_cuts(draws: Draws, cuts: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Return the threshold of each sample: midway between the drawn scores below and above its cut.

    Parameters
    ----------
    draws
        Bootstrap samples.
    cuts
        Index of the lowest rejected score for each sample, [draws]; k if no score is rejected.

    Returns
    -------
    NDArray[np.float64] | None
        float64 [draws]. None if a sample has one score only, so that no threshold can be chosen on it.
    """
    present = draws.good + draws.defective > 0
    return None if (present.sum(axis=1) < 2).any() else _place(draws.scores, present, cuts)


def _place(scores: NDArray[np.float64], present: NDArray[np.bool_], cuts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the threshold of each sample: midway between the drawn scores below and above its cut."""
    size = len(scores)
    places = np.arange(size)
    lower = np.where(present & (places < cuts[:, None]), places, -1).max(axis=1)
    upper = np.where(present & (places >= cuts[:, None]), places, size).min(axis=1)
    below, above = scores[np.maximum(lower, 0)], scores[np.minimum(upper, size - 1)]
    middle = below + (above - below) / 2
    middle = np.where(middle > below, middle, above)
    middle = np.where(lower < 0, above, middle)
    return np.asarray(np.where(upper == size, np.nextafter(below, math.inf), middle))


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
    ranks = [_rank(*scores) for scores in zip(good, defective, strict=True)]
    images, defects = good.shape[1], defective.shape[1]
    once = np.ones((1, images), np.int64), np.ones((1, defects), np.int64)
    first, second = (float(_measure_auroc(rank, *once)[0]) for rank in ranks)
    batch, differences = max(1, _CELLS // (images + defects)), []
    for done in range(0, _PAIRED_RESAMPLES, batch):
        count = min(batch, _PAIRED_RESAMPLES - done)
        drawn = _draw(random, np.arange(images), count, images), _draw(random, np.arange(defects), count, defects)
        differences.append(_measure_auroc(ranks[0], *drawn) - _measure_auroc(ranks[1], *drawn))
    every = np.concatenate(differences)
    interval = None if np.ptp(every) == 0.0 else percentile_interval(every)
    return (first, second), interval


_Ranks = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]
"""Good images by score, and for each defective one the number of good ones below it and not above it."""


def _rank(good: NDArray[np.float64], defective: NDArray[np.float64]) -> _Ranks:
    order = np.argsort(good, kind="stable")
    ordered = good[order]
    return order, np.searchsorted(ordered, defective, "left"), np.searchsorted(ordered, defective, "right")


def _measure_auroc(ranks: _Ranks, good: NDArray[np.int64], defective: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the AUROC of each sample, [draws], from how often each good and defective image was drawn."""
    order, below, not_above = ranks
    counts = np.cumsum(good[:, order], axis=1)
    counts = np.concatenate([np.zeros((len(counts), 1), np.int64), counts], axis=1)
    won = (defective * (counts[:, below] + counts[:, not_above])).sum(axis=1)
    return np.asarray(won / (2.0 * good.sum(axis=1) * defective.sum(axis=1)))
