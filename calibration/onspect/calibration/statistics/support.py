"""Claims about a rate that a number of images can support, prove or disprove."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from onspect.calibration.statistics.intervals import CONFIDENCE, Interval, lower_bound, rate_interval, upper_bound
from onspect.runtime.conformal import format_rate

_MOST_IMAGES = 1_000_000
"""Highest number of images that is given as a goal. A rate that needs more counts as impossible to prove."""

Outcome = Literal["PASS", "FAIL", "NOT PROVEN"]
"""Result for a required rate: kept or broken with 95% confidence, or neither is proved."""

Side = Literal["false rejects", "escapes", "reviews"]
"""Kind of mistake: good parts rejected, defective parts passed, good parts sent to a person."""


@dataclass(frozen=True)
class Target:
    """A required rate, with the rate of these images."""

    asked: str
    """The requirement as text."""

    rate: float
    """Rate of these images, 0 to 1."""

    interval: Interval
    """95% interval of the rate."""

    answer: str
    """Comparison as text."""

    broken: bool
    """Whether the rate breaks the requirement with 95% confidence."""

    outcome: Outcome
    """Result in one word."""

    more: int | None
    """Number of further images without a mistake that would prove the requirement. 0 if it is proved; None if no number
    would.
    """

    side: Side
    """Kind of mistake that the requirement limits."""

    wrong: int
    """Number of mistakes."""

    total: int
    """Number of images."""

    @classmethod
    def at_most(cls, asked: str, limit: float, count: int, total: int, side: Side = "false rejects") -> Target:
        """Compare a rate with a limit that it must not exceed.

        Parameters
        ----------
        asked
            The requirement as text.
        limit
            Highest rate, 0 to 1.
        count
            Number of images that the rate counts, 0 to total.
        total
            Number of images, 1 or more.
        side
            Kind of mistake.

        Returns
        -------
        Target
            The comparison.
        """
        return cls._compare(asked, limit, count, count, total, side)

    @classmethod
    def at_least(cls, asked: str, demand: float, count: int, total: int) -> Target:
        """Compare a rate with a limit that it must reach.

        Parameters
        ----------
        asked
            The requirement as text.
        demand
            Lowest rate, 0 to 1.
        count
            Number of images that the rate counts, 0 to total.
        total
            Number of images, 1 or more.

        Returns
        -------
        Target
            The comparison.
        """
        return cls._compare(asked, round(1.0 - demand, 12), total - count, count, total, "escapes")

    @classmethod
    def _compare(cls, asked: str, limit: float, wrong: int, count: int, total: int, side: Side) -> Target:
        """Compare the number of mistakes with its limit."""
        outcome: Outcome = "NOT PROVEN"
        if lower_bound(wrong, total) > limit:
            outcome, answer = "FAIL", "broken with 95% confidence"
        elif upper_bound(wrong, total) <= limit:
            outcome, answer = "PASS", "kept with 95% confidence"
        elif wrong <= limit * total:
            answer = "kept here; the images are too few to prove it"
        else:
            answer = "missed here, but chance can explain it"
        more = None if outcome == "FAIL" else count_missing(limit, wrong, total)
        rate, interval = count / total, rate_interval(count, total)
        return cls(asked, rate, interval, answer, outcome == "FAIL", outcome, more, side, wrong, total)


def count_missing(limit: float, wrong: int, total: int) -> int | None:
    """Return how many further images, all without a mistake, prove with 95% confidence that a rate keeps its limit.

    Parameters
    ----------
    limit
        Highest rate of mistakes, 0 to 1.
    wrong
        Number of mistakes so far.
    total
        Number of images so far.

    Returns
    -------
    int | None
        0 if it is proved already; None if no number of images would prove it.

    Examples
    --------
    >>> count_missing(0.05, 0, 0), count_missing(0.05, 0, 59), count_missing(0.05, 1, 59), count_missing(0.0, 0, 59)
    (59, 0, 34, None)
    """
    if limit <= 0.0 or limit >= 1.0:
        return 0 if limit >= 1.0 else None
    if total and upper_bound(wrong, total) <= limit:
        return 0
    low, high = total, max(1, 2 * total)
    while upper_bound(wrong, high) > limit:
        if high > _MOST_IMAGES:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(wrong, middle) > limit else (low, middle)
    return high - total


def find_unsupported_limit(
    limit: float, lead: str, what: str, count: int, good: int, noun: str = "image"
) -> str | None:
    """Return whether the images support an upper limit: the one-sided 95% upper bound of the rate is within it.

    Parameters
    ----------
    limit
        Highest share of good images, 0 to 1.
    lead
        Beginning of the sentence: the requirement, with ``{limit}`` for the limit.
    what
        Participle for the counted images, such as ``rejected``.
    count
        Number of counted images, 0 to good.
    good
        Number of good images, 1 or more.
    noun
        Unit of the counts, ``image`` or ``part``.

    Returns
    -------
    str | None
        A sentence with the rate that the images support; None if they support the limit.
    """
    bound = upper_bound(count, good)
    if bound <= limit:
        return None
    needed = _images_without_failure(limit)
    return (
        f"{lead.format(limit=format_share(limit))}; {good} good {noun}{'s' * (good != 1)}, {count} of them {what}, "
        f"support at best {format_share(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} good {noun}s with none {what} would support it" if needed else "")
    )


def find_unsupported_demand(
    demand: float, verb: str, what: str, count: int, defective: int, noun: str = "image"
) -> str | None:
    """Return whether the images support a lower limit: the one-sided 95% lower bound of the rate reaches it.

    Parameters
    ----------
    demand
        Lowest share of defective images, 0 to 1.
    verb
        Verb for the requirement, such as ``catch``.
    what
        Participle for the counted images, such as ``caught``.
    count
        Number of counted images, 0 to defective.
    defective
        Number of defective images, 1 or more.
    noun
        Unit of the counts, ``image`` or ``part``.

    Returns
    -------
    str | None
        A sentence with the rate that the images support; None if they support the limit.
    """
    bound = lower_bound(count, defective)
    if bound >= demand:
        return None
    needed = _images_without_failure(1.0 - demand)
    images = f"{defective} defective {noun}{'s' * (defective != 1)}"
    return (
        f"you asked to {verb} at least {format_share(demand)} of defects; {images}, "
        f"{count} of them {what}, support at best {format_share(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} defective {noun}s without a miss would support it" if needed else "")
    )


def _images_without_failure(rate: float) -> int | None:
    """Return how many images without a mistake prove that their rate is at most `rate`; None if no number does."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-rate)) if 0.0 < rate < 1.0 else None


def format_share(rate: float) -> str:
    """Return a share in percent, rounded to 0.01%, or to two digits if it is below 0.1%.

    Parameters
    ----------
    rate
        Share of 1.

    Returns
    -------
    str
        Such as ``14.29%``.

    Examples
    --------
    >>> format_share(1 / 7), format_share(0.0005)
    ('14.29%', '0.05%')
    """
    return format_rate(round(rate, 4) if rate >= 1e-3 else float(f"{rate:.2g}"))
