"""The review band: which parts below the threshold go to a person instead of passing, and what that saves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.thresholds import Scores, candidates, count_reaching, format_rate, min_recall
from onspect.runtime.errors import DatasetError, ModelFileError
from onspect.runtime.model.schema import Rule, Threshold

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""The shares of good parts sent to a person for which a table says what is saved."""

BandName = Literal["review_interval", "review_recall", "review_share"]


@dataclass(frozen=True)
class Band:
    """Where the band below the threshold begins.

    name: ``review_interval`` (at the lower end of the threshold's 95% interval), ``review_recall`` (where the share
    `rate` of the defective images is rejected or reviewed) or ``review_share`` (as low as it may with at most the share
    `rate` of the good images reviewed). rate: 0 to 1, None for the first.
    """

    name: BandName
    rate: float | None = None

    @classmethod
    def from_rule(cls, rule: Rule) -> Band:
        """Return the band that a model file names; raises ModelFileError where this release has no such band."""
        if rule.name not in get_args(BandName):
            raise ModelFileError(
                f"the file's review band was chosen by {rule.name!r}, which this onspect does not know"
            )
        return cls(cast("BandName", rule.name), rule.rate)

    def describe(self) -> str:
        """Return the rule in words with its number."""
        share = "" if self.rate is None else format_rate(self.rate)
        return {
            "review_interval": "review down to the threshold's 95% interval",
            "review_recall": f"review down to where at least {share} of defects are caught or reviewed",
            "review_share": f"review of at most {share} of good parts",
        }[self.name]


@dataclass(frozen=True)
class ReviewCurve:
    """What a review band saves, for each place where it could begin, from no band at all downwards; float64 [n] each.

    review: the band's lower end. good, defective: share of the good and of the defective images that it sends to a
    person. escapes: share of the defective images that pass all the same. All shares are 0 to 1.
    """

    review: NDArray[np.float64]
    good: NDArray[np.float64]
    defective: NDArray[np.float64]
    escapes: NDArray[np.float64]

    def find(self, share: float) -> int:
        """Return the index of the longest band that sends at most this share of the good images to a person."""
        return int(np.flatnonzero(self.good <= share)[-1])


def check_band(band: Band | None, defective: int) -> None:
    """Raise DatasetError where a band cannot be chosen with so many defective images."""
    if band is not None and band.name == "review_recall" and not defective:
        raise DatasetError(
            "--review-recall needs defective images, and there are good ones only; "
            "use --review-share 5%, which needs good images only"
        )


def choose_review(
    band: Band, good: Scores, defective: Scores, threshold: float, interval: Interval | None
) -> float | None:
    """Return where the review band below a threshold begins; None where the rule leaves no band.

    good and defective are scores; interval is the threshold's own, None where it has none. Raises DatasetError as
    `check_band` does, and for an interval that is asked for and not there.

    >>> choose_review(Band("review_recall", 1.0), np.array([1.0, 2.0]), np.array([3.0, 5.0]), 4.0, None)
    2.5
    >>> choose_review(Band("review_share", 0.5), np.array([1.0, 2.0]), np.array([3.0, 5.0]), 4.0, None)
    1.5
    """
    check_band(band, len(defective))
    if band.name == "review_interval":
        if interval is None:
            raise DatasetError(
                "--review takes the band from the threshold's interval, and these images give none "
                "(a threshold set by hand has none either); use --review-recall 99% or --review-share 5%"
            )
        review = interval[0]
        if review == -math.inf:
            raise DatasetError(
                f"--review takes the band from the lower end of the threshold's interval, which {len(defective)} "
                "defective images cannot bound; use --review-recall 99% or --review-share 5%"
            )
    elif band.name == "review_recall":
        review = min_recall(good, defective, band.rate or 0.0)
    else:
        curve = trace_review(good, defective, threshold)
        longest = curve.find(band.rate or 0.0)
        holds_any = curve.good[longest] + curve.defective[longest] > 0
        review = float(curve.review[longest]) if holds_any else threshold
    return review if review < threshold else None


def trace_review(good: Scores, defective: Scores, threshold: float) -> ReviewCurve:
    """Return what every review band below a threshold would do on these scores; there must be good ones."""
    below = candidates(np.concatenate([good, defective]))
    return _measure(good, defective, threshold, np.concatenate([[threshold], below[below < threshold][::-1]]))


def tabulate_review(good: Scores, defective: Scores, threshold: Threshold) -> ReviewCurve:
    """Return the points of the curve that a table shows: no band, a band for each of `SHARES`, and the threshold's."""
    curve = trace_review(good, defective, threshold.score)
    begins = {threshold.score, threshold.score if threshold.review is None else threshold.review}
    begins |= {float(curve.review[curve.find(share)]) for share in SHARES}
    return _measure(good, defective, threshold.score, np.array(sorted(begins, reverse=True)))


def _measure(good: Scores, defective: Scores, threshold: float, review: NDArray[np.float64]) -> ReviewCurve:
    return ReviewCurve(
        review=review,
        good=_share(good, review, threshold),
        defective=_share(defective, review, threshold),
        escapes=1.0 - count_reaching(defective, review) / max(1, len(defective)),
    )


def _share(scores: Scores, review: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return the share of the scores from each lower end up to the threshold."""
    rejected = count_reaching(scores, np.array([threshold]))
    return np.asarray((count_reaching(scores, review) - rejected) / max(1, len(scores)), np.float64)
