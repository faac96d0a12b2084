"""Review band: parts below the threshold that are sent to a person instead of passing."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.metrics.image import Confusion
from onspect.calibration.rules import NamedRule, OptionSpec
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.statistics.support import Target, find_unsupported_demand, find_unsupported_limit
from onspect.calibration.thresholds import MinRecall
from onspect.runtime.conformal import Scores, candidates, count_reaching, format_rate
from onspect.runtime.errors import DatasetError
from onspect.runtime.model.schema import Threshold

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of good parts sent to a person for which a table shows the effect."""


@dataclass(frozen=True)
class Band(NamedRule):
    """Base class of the rules that choose the lower end of the review band below a threshold."""

    substitute = "--review-share 5%"

    def choose(self, good: Scores, defective: Scores, threshold: float, interval: Interval | None) -> float | None:
        """Return the lower end of the review band below a threshold.

        Parameters
        ----------
        good
            Scores of the good images or parts, float [n].
        defective
            Scores of the defective images or parts, float [m].
        threshold
            Threshold of the score.
        interval
            95% interval of the threshold; None if it has none.

        Returns
        -------
        float | None
            Score at which the band begins; None if the rule gives no band.

        Raises
        ------
        DatasetError
            If the images are not enough for the rule, or if the rule needs an interval and `interval` is missing.
        """
        self.check(len(good), len(defective))
        review = self.pick(good, defective, threshold, interval)
        return review if review < threshold else None

    @abstractmethod
    def pick(self, good: Scores, defective: Scores, threshold: float, interval: Interval | None) -> float:
        """Return the lower end of the band, without the checks of `choose`.

        Parameters
        ----------
        good
            Scores of the good images or parts, float [n].
        defective
            Scores of the defective images or parts, float [m].
        threshold
            Threshold of the score.
        interval
            95% interval of the threshold; None if it has none.

        Returns
        -------
        float
            Score at which the band begins; the threshold or more if there is no band.
        """


@dataclass(frozen=True)
class ReviewInterval(Band):
    """The band begins at the lower end of the threshold's 95% interval."""

    name = "review_interval"
    option = OptionSpec("review", "Send parts that score within the threshold's 95% interval to a person.", metavar="")

    def describe(self) -> str:
        return "review down to the threshold's 95% interval"

    def pick(self, good: Scores, defective: Scores, threshold: float, interval: Interval | None) -> float:
        if interval is None:
            raise DatasetError(
                "--review takes the band from the threshold's interval, and these images give none "
                "(a threshold set by hand has none either); use --review-recall 99% or --review-share 5%"
            )
        if interval[0] == -math.inf:
            raise DatasetError(
                f"--review takes the band from the lower end of the threshold's interval, which {len(defective)} "
                "defective images cannot bound; use --review-recall 99% or --review-share 5%"
            )
        return interval[0]


@dataclass(frozen=True)
class ReviewRecall(Band):
    """The band begins where at least the share `rate` of the defective images is rejected or reviewed.

    >>> ReviewRecall(1.0).choose(np.array([1.0, 2.0]), np.array([3.0, 5.0]), 4.0, None)
    2.5
    """

    name = "review_recall"
    option = OptionSpec(
        "review_recall",
        "Send parts below the threshold to a person, down to where this share of defects is seen.",
    )
    needs_defects = True

    rate: float
    """Lowest share of defective images that are rejected or reviewed, 0 to 1."""

    def describe(self) -> str:
        return f"review down to where at least {format_rate(self.rate)} of defects are caught or reviewed"

    def pick(self, good: Scores, defective: Scores, threshold: float, interval: Interval | None) -> float:
        return MinRecall(self.rate).pick(good, defective)

    def support(self, confusion: Confusion) -> str | None:
        seen = confusion.true_ng + confusion.review_defective
        words = ("catch or review", "caught or reviewed")
        return find_unsupported_demand(self.rate, *words, seen, confusion.defective, confusion.noun)

    def target(self, confusion: Confusion, *, banded: bool) -> Target | None:
        if not banded or not confusion.defective:
            return None
        asked = f"at least {format_rate(self.rate)} of defective parts rejected or seen by a person"
        return Target.at_least(asked, self.rate, confusion.defective - confusion.false_ok, confusion.defective)


@dataclass(frozen=True)
class ReviewShare(Band):
    """The longest band with at most the share `rate` of the good images.

    >>> ReviewShare(0.5).choose(np.array([1.0, 2.0]), np.array([3.0, 5.0]), 4.0, None)
    1.5
    """

    name = "review_share"
    option = OptionSpec(
        "review_share",
        "Send at most this share of good parts to a person: those that score next to the threshold.",
    )

    rate: float
    """Highest share of good images that are reviewed, 0 to 1."""

    def describe(self) -> str:
        return f"review of at most {format_rate(self.rate)} of good parts"

    def pick(self, good: Scores, defective: Scores, threshold: float, interval: Interval | None) -> float:
        curve = trace_review(good, defective, threshold)
        longest = curve.find(self.rate)
        holds_any = curve.good[longest] + curve.defective[longest] > 0
        return float(curve.review[longest]) if holds_any else threshold

    def support(self, confusion: Confusion) -> str | None:
        lead = "you asked to review at most {limit} of good parts"
        return find_unsupported_limit(
            self.rate, lead, "reviewed", confusion.review_good, confusion.good, confusion.noun
        )

    def target(self, confusion: Confusion, *, banded: bool) -> Target | None:
        if not banded or not confusion.good:
            return None
        asked = f"at most {format_rate(self.rate)} of good parts to a person"
        return Target.at_most(asked, self.rate, confusion.review_good, confusion.good, "reviews")


BANDS: tuple[type[Band], ...] = (ReviewInterval, ReviewRecall, ReviewShare)
"""All rules for a review band, in the order of the help."""

Band.kinds = BANDS


@dataclass(frozen=True)
class ReviewCurve:
    """Effect of each possible review band, from no band to the longest one. All shares are 0 to 1."""

    review: NDArray[np.float64]
    """Score at which the band begins, float64 [n], descending."""
    good: NDArray[np.float64]
    """Share of the good images in the band, float64 [n]."""
    defective: NDArray[np.float64]
    """Share of the defective images in the band, float64 [n]."""
    escapes: NDArray[np.float64]
    """Share of the defective images that pass, float64 [n]."""

    def find(self, share: float) -> int:
        """Return the longest band with at most a given share of the good images.

        Parameters
        ----------
        share
            Highest share of good images in the band, 0 to 1.

        Returns
        -------
        int
            Index of the band.
        """
        return int(np.flatnonzero(self.good <= share)[-1])


def trace_review(good: Scores, defective: Scores, threshold: float) -> ReviewCurve:
    """Return the effect of every review band below a threshold. There must be good scores.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].
    threshold
        Threshold of the score.

    Returns
    -------
    ReviewCurve
        Shares for each band.
    """
    below = candidates(np.concatenate([good, defective]))
    return _measure(good, defective, threshold, np.concatenate([[threshold], below[below < threshold][::-1]]))


def tabulate_review(good: Scores, defective: Scores, threshold: Threshold) -> ReviewCurve:
    """Return the effect of the bands that a table shows.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].
    threshold
        The threshold with its review band, if any.

    Returns
    -------
    ReviewCurve
        Shares for no band, for a band for each of `SHARES`, and for the threshold's own band.
    """
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
