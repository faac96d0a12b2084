"""What so many images can support of a rate that was asked for, and what other images say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onspect.calibration.statistics.intervals import CONFIDENCE, Interval, lower_bound, upper_bound
from onspect.runtime.conformal import format_rate


@dataclass(frozen=True)
class Target:
    """A rate that was asked for at calibration, and what other images say of it."""

    asked: str
    """In words."""

    rate: float
    """Of these images, 0 to 1."""

    interval: Interval
    """95% interval of the rate."""

    answer: str
    """In words."""

    broken: bool
    """Whether the whole interval is on the wrong side."""

    @classmethod
    def at_most(cls, asked: str, limit: float, rate: float, interval: Interval) -> Target:
        """Compare a rate with a limit that it must not exceed."""
        return cls._compare(asked, rate, interval, rate <= limit, interval[1] <= limit, interval[0] > limit)

    @classmethod
    def at_least(cls, asked: str, demand: float, rate: float, interval: Interval) -> Target:
        """Compare a rate with one that it must reach."""
        return cls._compare(asked, rate, interval, rate >= demand, interval[0] >= demand, interval[1] < demand)

    @classmethod
    def _compare(cls, asked: str, rate: float, interval: Interval, kept: bool, proved: bool, broken: bool) -> Target:
        if broken:
            answer = "broken: the whole interval lies beyond it"
        elif proved:
            answer = "kept: the whole interval lies within it"
        else:
            answer = "kept here; so few images cannot prove it" if kept else "missed here, by what chance can explain"
        return cls(asked, rate, interval, answer, broken)


def find_unsupported_limit(limit: float, lead: str, what: str, count: int, good: int) -> str | None:
    """Return in words that count of so many good images do not support a limit on their share; None if they do.

    They support it if the rate's one-sided 95% upper bound is within it. lead says what was asked for, with ``{limit}``
    in the place of the limit; what says what the counted ones are, such as ``rejected``.
    """
    bound = upper_bound(count, good)
    if bound <= limit:
        return None
    needed = _images_without_failure(limit)
    return (
        f"{lead.format(limit=_percent(limit))}; {good} good image{'s' * (good != 1)}, {count} of them {what}, "
        f"support at best {_percent(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} good images with none {what} would support it" if needed else "")
    )


def find_unsupported_demand(demand: float, verb: str, what: str, count: int, defective: int) -> str | None:
    """Return in words that count of so many defective images do not support a demand on their share; None if they do.

    They support it if the share's one-sided 95% lower bound reaches it. verb, what: such as ``catch``, ``caught``.
    """
    bound = lower_bound(count, defective)
    if bound >= demand:
        return None
    needed = _images_without_failure(1.0 - demand)
    images = f"{defective} defective image{'s' * (defective != 1)}"
    return (
        f"you asked to {verb} at least {_percent(demand)} of defects; {images}, "
        f"{count} of them {what}, support at best {_percent(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} defective images without a miss would support it" if needed else "")
    )


def _images_without_failure(rate: float) -> int | None:
    """Return how many images without a failure bound its rate by `rate`; None where no number does."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-rate)) if 0.0 < rate < 1.0 else None


def _percent(rate: float) -> str:
    return format_rate(round(rate, 4) if rate >= 1e-3 else float(f"{rate:.2g}"))
