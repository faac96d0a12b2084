"""What so many images can support of a rate that was asked for, and what other images say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from onspect.calibration.statistics.intervals import CONFIDENCE, Interval, lower_bound, rate_interval, upper_bound
from onspect.runtime.conformal import format_rate

_MOST_IMAGES = 1_000_000
"""More than anybody takes: what would need as many is said to be out of reach."""

Outcome = Literal["PASS", "FAIL", "NOT PROVEN"]
"""What images say of a rate that was asked for: it is kept or broken with 95% confidence, or neither is shown."""

Side = Literal["false rejects", "escapes", "reviews"]
"""Good parts that are rejected, defective parts that pass, good parts that go to a person."""


@dataclass(frozen=True)
class Target:
    """A rate that was asked for, and what these images say of it."""

    asked: str
    """In words."""

    rate: float
    """Of these images, 0 to 1."""

    interval: Interval
    """95% interval of the rate."""

    answer: str
    """In words."""

    broken: bool
    """Whether the rate lies beyond what was asked for, with 95% confidence."""

    outcome: Outcome
    """The answer in one word."""

    more: int | None
    """How many more images without one on the wrong side would prove it; 0 if it is proved, None if no number would."""

    side: Side
    """What it is about."""

    wrong: int
    """How many were on the wrong side."""

    total: int
    """Of how many."""

    @classmethod
    def at_most(cls, asked: str, limit: float, count: int, total: int, side: Side = "false rejects") -> Target:
        """Compare a rate, count of total, with a limit that it must not exceed."""
        return cls._compare(asked, limit, count, total, side, count / total, rate_interval(count, total))

    @classmethod
    def at_least(cls, asked: str, demand: float, count: int, total: int, side: Side = "escapes") -> Target:
        """Compare a rate, count of total, with one that it must reach."""
        wrong, limit = total - count, round(1.0 - demand, 12)
        return cls._compare(asked, limit, wrong, total, side, count / total, rate_interval(count, total))

    @classmethod
    def _compare(
        cls,
        asked: str,
        limit: float,
        wrong: int,
        total: int,
        side: Side,
        rate: float,
        interval: Interval,
    ) -> Target:
        """Hold the number of images on the wrong side against its limit."""
        outcome: Outcome = "NOT PROVEN"
        if lower_bound(wrong, total) > limit:
            outcome, answer = "FAIL", "broken: it is beyond with 95% confidence"
        elif upper_bound(wrong, total) <= limit:
            outcome, answer = "PASS", "kept with 95% confidence"
        elif wrong <= limit * total:
            answer = "kept here; so few images cannot prove it"
        else:
            answer = "missed here, by what chance can explain"
        more = None if outcome == "FAIL" else count_missing(limit, wrong, total)
        return cls(asked, rate, interval, answer, outcome == "FAIL", outcome, more, side, wrong, total)


def count_missing(limit: float, wrong: int, total: int) -> int | None:
    """Return how many more images, none on the wrong side, show with 95% confidence that a rate keeps its limit.

    wrong of total are on the wrong side so far. 0 if they show it; None if no number of images would.

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
    """Return in words that count of so many good images do not support a limit on their share; None if they do.

    They support it if the rate's one-sided 95% upper bound is within it. lead says what was asked for, with ``{limit}``
    in the place of the limit; what says what the counted ones are, such as ``rejected``.
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
    """Return in words that count of so many defective images do not support a demand on their share; None if they do.

    They support it if the share's one-sided 95% lower bound reaches it. verb, what: such as ``catch``, ``caught``.
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
    """Return how many images without a failure bound its rate by `rate`; None where no number does."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-rate)) if 0.0 < rate < 1.0 else None


def format_share(rate: float) -> str:
    """Return a share of 1 in percent, to a hundredth of it where it is not smaller.

    >>> format_share(1 / 7), format_share(0.0005)
    ('14.29%', '0.05%')
    """
    return format_rate(round(rate, 4) if rate >= 1e-3 else float(f"{rate:.2g}"))
