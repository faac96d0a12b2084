"""How far good scores have moved from the calibration's, and whether good and defective can still be told apart.

Scores are compared as logarithms, or as log-odds where they are 0 to 1: only their order and their ratios are taken to
mean anything. The model is that each part's score moved by one shift and one spread, score' = centre' + spread *
(score - centre), for good and for defective parts. Twenty frames cannot tell more, and cannot show that it holds for
defects; test marks (`onspect.runtime.recalibration.probe_defects`) are what speaks for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.binomial import CONFIDENCE

Scores = NDArray[Any]
"""Scores, float [n], at least 0, higher is worse."""

_LEVELS = np.linspace(0.1, 0.9, 17)  # the quantiles compared: a frame in ten may be an odd one
_RESAMPLES = 500
_LEAST_AUROC = 0.75
_MOST_LOST = 0.25


@dataclass(frozen=True)
class ScoreTransform:
    """How good scores have moved, in units of the link.

    odds: whether the link is the log-odds, else it is the logarithm. floor: scores below it count as it. old_centre,
    new_centre: of the middle four fifths. spread: of the new scores over the old; exactly 1 where its interval holds 1,
    since so few frames place a threshold better with the old spread than with their own. resamples: the three anew,
    [3, n], for intervals.
    """

    odds: bool
    floor: float
    old_centre: float
    new_centre: float
    spread: float
    resamples: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def moved(self) -> bool:
        """Whether the scores have moved by more than so many frames differ by chance."""
        low, high = _span(self.resamples[1] - self.resamples[0])
        return self.spread != 1.0 or not low <= 0.0 <= high

    def apply(self, score: float) -> float:
        """Return what a score of before is now."""
        return float(self._unlink(self.new_centre + self.spread * (self._link(score) - self.old_centre)))

    def apply_interval(self, score: float) -> tuple[float, float]:
        """Return the 95% bootstrap interval of `apply`; the spread is free in it."""
        old, new, spread = self.resamples
        low, high = _span(new + spread * (self._link(score) - old))
        return float(self._unlink(low)), float(self._unlink(high))

    def _link(self, score: float) -> float:
        return float(_link(np.array([score]), self.odds, self.floor)[0])

    def _unlink(self, value: float) -> float:
        return math.exp(value - math.log1p(math.exp(value)) if self.odds else value)


def fit_transform(old: Scores, new: Scores, *, odds: bool) -> ScoreTransform:
    """Compare the good scores of before with those of now, by a line through their quantiles from 10% to 90%.

    odds tells whether scores are 0 to 1, as probabilities are.
    """
    every = np.concatenate([old, new])
    positive = every[every > 0]
    floor = float(positive.min()) / 2 if len(positive) else 1e-12
    old, new = _link(old, odds, floor), _link(new, odds, floor)
    random = np.random.default_rng(0)
    drawn = [scores[random.integers(0, len(scores), (_RESAMPLES, len(scores)))] for scores in (old, new)]
    resamples = _fit(*drawn)
    old_centre, new_centre, spread = _fit(old[None], new[None])[:, 0].tolist()
    low, high = _span(resamples[2])
    return ScoreTransform(odds, floor, old_centre, new_centre, 1.0 if low <= 1.0 <= high else spread, resamples)


def chance_of_rejects(old: Scores, threshold: float, transform: ScoreTransform, frames: int, rejected: int) -> float:
    """Return how probable so many rejects or more are among new good frames, at the threshold carried over to them.

    Scores drawn from the old ones stand in for frames whose scores moved as the model has it. Their own threshold is
    carried over to them in the same way, so that its uncertainty counts.
    """
    old = _link(old, transform.odds, transform.floor)
    cut = float(_link(np.array([threshold]), transform.odds, transform.floor)[0])
    drawn = old[np.random.default_rng(1).integers(0, len(old), (_RESAMPLES, frames))]
    old_centre, new_centre, spread = _fit(np.broadcast_to(old, (_RESAMPLES, len(old))), drawn)
    carried = new_centre + (1.0 if transform.spread == 1.0 else spread) * (cut - old_centre)
    return float(((drawn >= carried[:, None]).sum(axis=1) >= rejected).mean())


def _fit(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centres and the spread for each row of scores, [3, rows]."""
    x, y = (np.quantile(scores, _LEVELS, axis=1) for scores in (old, new))
    x_centre, y_centre = x.mean(axis=0), y.mean(axis=0)
    width = np.square(x - x_centre).sum(axis=0)
    covered = ((x - x_centre) * (y - y_centre)).sum(axis=0)
    spread = np.divide(covered, width, out=np.ones_like(width), where=width > 0)
    return np.stack([x_centre, y_centre, spread])


def _link(scores: Scores, odds: bool, floor: float) -> NDArray[np.float64]:
    scores = np.maximum(np.asarray(scores, np.float64), floor)
    return np.log(scores) - np.log1p(-np.minimum(scores, 1.0 - 2.0**-24)) if odds else np.log(scores)


@dataclass(frozen=True)
class ProbeAuroc:
    """How well marked parts are told from good ones: the share of pairs in which the marked one scores higher.

    before: at calibration. now: of the new frames. worst: with one-sided 95% confidence it is now no less than this
    below `before`.
    """

    before: float
    now: float
    worst: float

    @property
    def usable(self) -> bool:
        """Whether the model saw the marks well enough at calibration for them to show anything."""
        return self.before >= _LEAST_AUROC

    @property
    def kept(self) -> bool:
        """Whether it is shown that at most a quarter of what is above chance was lost."""
        return self.usable and self.worst < self.allowed

    @property
    def allowed(self) -> float:
        """What may be lost at most: a quarter of what is above chance."""
        return _MOST_LOST * (self.before - 0.5)

    @property
    def lost(self) -> bool:
        """Whether more than that seems lost already, so that more frames are no cure."""
        return self.before - self.now >= self.allowed


def compare_probe_auroc(old_good: Scores, old_probes: Scores, new_good: Scores, new_probes: Scores) -> ProbeAuroc:
    """Compare how well test marks are seen. Scores of marks are [images, 4]; the bootstrap resamples whole images."""
    random = np.random.default_rng(0)

    def resample(scores: Scores) -> Scores:
        return scores[random.integers(0, len(scores), len(scores))]

    before, now = _measure_auroc(old_good, old_probes), _measure_auroc(new_good, new_probes)
    losses = []
    for _ in range(_RESAMPLES):
        frames = random.integers(0, len(new_good), len(new_good))
        old = _measure_auroc(resample(old_good), resample(old_probes))
        losses.append(old - _measure_auroc(new_good[frames], new_probes[frames]))
    return ProbeAuroc(before, now, float(np.quantile(losses, CONFIDENCE)))


def _measure_auroc(good: Scores, probes: Scores) -> float:
    ordered, probes = np.sort(good), np.ravel(probes)
    below = np.searchsorted(ordered, probes, side="left") + np.searchsorted(ordered, probes, side="right")
    return float(below.mean()) / (2 * len(good))


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)
