"""How good scores have moved since calibration, and whether good and defective parts still have different scores.

Scores are compared as logarithms, or as log-odds if they are 0 to 1, because only their order and ratios are
meaningful. The model is that the score of each part moved by one shift and one spread: score' = centre' + spread *
(score - centre). It applies to good and to defective parts. Twenty frames cannot show more, and cannot show that the
model is valid for defects. The evidence for that are probe defects (`onspect.runtime.recalibration.probe_defects`).
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

_LEVELS = np.linspace(0.1, 0.9, 17)  # compared quantiles: one frame in ten may be an outlier
_RESAMPLES = 500
_LEAST_AUROC = 0.75
_MOST_LOST = 0.25


@dataclass(frozen=True)
class ScoreTransform:
    """How good scores have moved, in units of the link."""

    odds: bool
    """Whether the link is the log-odds; otherwise it is the logarithm."""

    floor: float
    """Lower scores are raised to this value, above 0."""

    old_centre: float
    """Centre of the middle four fifths of the old scores."""

    new_centre: float
    """Centre of the middle four fifths of the new scores."""

    spread: float
    """Spread of the new scores over that of the old ones. It is exactly 1 if its interval contains 1, because the old
    spread then places a threshold better."""

    resamples: NDArray[np.float64] = field(repr=False, compare=False)
    """Bootstrap of the two centres and the spread, float64 [3, n], for intervals."""

    @property
    def moved(self) -> bool:
        """Whether the scores have moved more than this number of frames differs by chance."""
        low, high = _span(self.resamples[1] - self.resamples[0])
        return self.spread != 1.0 or not low <= 0.0 <= high

    def apply(self, score: float) -> float:
        """Transform an old score to the new scale.

        Parameters
        ----------
        score
            The old score, 0 or more.

        Returns
        -------
        float
            The new score.
        """
        return float(self._unlink(self.new_centre + self.spread * (self._link(score) - self.old_centre)))

    def apply_interval(self, score: float) -> tuple[float, float]:
        """Return the 95% bootstrap interval of `apply`. The spread is free in it.

        Parameters
        ----------
        score
            The old score, 0 or more.

        Returns
        -------
        tuple[float, float]
            Low and high end of the new score.
        """
        old, new, spread = self.resamples
        low, high = _span(new + spread * (self._link(score) - old))
        return float(self._unlink(low)), float(self._unlink(high))

    def _link(self, score: float) -> float:
        return float(_link(np.array([score]), self.odds, self.floor)[0])

    def _unlink(self, value: float) -> float:
        return math.exp(value - math.log1p(math.exp(value)) if self.odds else value)


def fit_transform(old: Scores, new: Scores, *, odds: bool) -> ScoreTransform:
    """Fit a line through the quantiles of old and new good scores, from 10% to 90%.

    Parameters
    ----------
    old
        Good scores of the calibration, float [n].
    new
        Good scores of now, float [m].
    odds
        Whether scores are 0 to 1, like probabilities.

    Returns
    -------
    ScoreTransform
        The transform from old to new scores.
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
    """Return the probability of a number of rejects, or more, among new good frames at the transferred threshold.

    Random old scores represent frames whose scores moved as the model says. Their own threshold is transferred in
    the same way, so that its uncertainty counts.

    Parameters
    ----------
    old
        Good scores of the calibration, float [n].
    threshold
        The threshold of the calibration.
    transform
        The transform from old to new scores.
    frames
        Number of new frames.
    rejected
        Number of rejects.

    Returns
    -------
    float
        0 to 1.
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
    """How well probe defects are separated from good parts: the share of pairs in which the probe has the higher
    score.
    """

    before: float
    """AUROC at calibration, 0 to 1."""

    now: float
    """AUROC of the new frames, 0 to 1."""

    worst: float
    """Upper bound of the loss since calibration, with one-sided 95% confidence."""

    @property
    def usable(self) -> bool:
        """Whether the model separated the probes well enough at calibration for a comparison."""
        return self.before >= _LEAST_AUROC

    @property
    def kept(self) -> bool:
        """Whether it is shown that at most a quarter of the AUROC above chance was lost."""
        return self.usable and self.worst < self.allowed

    @property
    def allowed(self) -> float:
        """The largest allowed loss: a quarter of the AUROC above chance."""
        return _MOST_LOST * (self.before - 0.5)

    @property
    def lost(self) -> bool:
        """Whether more than that seems lost already, so that more frames do not help."""
        return self.before - self.now >= self.allowed


def compare_probe_auroc(old_good: Scores, old_probes: Scores, new_good: Scores, new_probes: Scores) -> ProbeAuroc:
    """Compare the separation of probe defects at calibration and now. The bootstrap resamples whole images.

    Parameters
    ----------
    old_good
        Good scores of the calibration, float [n].
    old_probes
        Scores of the calibration's probe defects, float [images, 4].
    new_good
        Good scores of now, float [m].
    new_probes
        Scores of the probe defects now, float [m, 4].

    Returns
    -------
    ProbeAuroc
        Both AUROCs and the bound of the loss.
    """
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
