"""What a calibration's images can support of what was asked for, and what they cannot."""

from __future__ import annotations

import math

from onspect.calibration.intervals import (
    CONFIDENCE,
    Interval,
    bootstrap_intervals,
    lower_bound,
    rate_interval,
    upper_bound,
)
from onspect.calibration.metrics import Confusion, Scores, measure_areas
from onspect.calibration.thresholds import Policy, choose_threshold, format_rate
from onspect.runtime.errors import DatasetError


def find_unsupported_claim(policy: Policy, confusion: Confusion) -> str | None:
    """Return in words what was asked for and what so many images support at best, or None where they support it.

    A limit on false rejects is supported where their rate's one-sided 95% upper bound is within it, a demand on recall
    where its lower bound is. The conformal policy makes its promise by itself.
    """
    if policy.rate is None or policy.name == "conformal":
        return None
    if policy.name == "min_recall":
        return _find_unsupported_recall(policy.rate, confusion)
    if policy.name == "max_fpr":
        return _find_unsupported_rejects(policy.rate, "you asked for", confusion)
    limit = 1.0 - policy.rate
    return _find_unsupported_rejects(limit, f"{format_rate(policy.rate)} of good images passing means", confusion)


def _find_unsupported_rejects(limit: float, lead: str, confusion: Confusion) -> str | None:
    good = confusion.good
    bound = upper_bound(confusion.false_ng, good)
    if bound <= limit:
        return None
    needed = _images_without_failure(limit)
    return (
        f"{lead} at most {_percent(limit)} false rejects; {good} good images, {confusion.false_ng} of them rejected, "
        f"support at best {_percent(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} good images without a reject would support it" if needed else "")
    )


def _find_unsupported_recall(demand: float, confusion: Confusion) -> str | None:
    defective = confusion.defective
    bound = lower_bound(confusion.true_ng, defective)
    if bound >= demand:
        return None
    needed = _images_without_failure(1.0 - demand)
    return (
        f"you asked to catch at least {_percent(demand)} of defects; {defective} defective images, "
        f"{confusion.true_ng} of them caught, support at best {_percent(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} defective images without a miss would support it" if needed else "")
    )


def _images_without_failure(rate: float) -> int | None:
    """Return how many images without a failure bound its rate by `rate`; None where no number does."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-rate)) if 0.0 < rate < 1.0 else None


def _percent(rate: float) -> str:
    return format_rate(round(rate, 4) if rate >= 1e-3 else float(f"{rate:.2g}"))


def measure_rates(confusion: Confusion) -> dict[str, Interval]:
    """Return the exact 95% intervals of ``fpr`` and ``recall``, each where there are images for it."""
    intervals = {}
    if confusion.good:
        intervals["fpr"] = rate_interval(confusion.false_ng, confusion.good)
    if confusion.defective:
        intervals["recall"] = rate_interval(confusion.true_ng, confusion.defective)
    return intervals


def measure_area_intervals(good: Scores, defective: Scores) -> dict[str, Interval]:
    """Return the bootstrap 95% intervals of ``auroc`` and ``aupr``; none where good or defective images are missing."""
    if not len(good) or not len(defective):
        return {}

    def areas(some_good: Scores, some_defective: Scores) -> tuple[float, float]:
        found = measure_areas(some_good, some_defective)
        assert found.auroc is not None
        assert found.aupr is not None
        return found.auroc, found.aupr

    return dict(zip(("auroc", "aupr"), bootstrap_intervals(areas, good, defective), strict=True))


def measure_threshold_interval(policy: Policy, good: Scores, defective: Scores) -> dict[str, Interval]:
    """Return the bootstrap 95% interval of the ``threshold`` itself: where it would lie with other images like these.

    Nothing is returned where it cannot be had: with one image, or where images drawn anew can all have one score.
    """

    def threshold(some_good: Scores, some_defective: Scores) -> tuple[float]:
        return (choose_threshold(policy, some_good, some_defective),)

    if policy.name == "manual":
        return {}
    try:
        return {"threshold": bootstrap_intervals(threshold, good, defective)[0]}
    except DatasetError:
        return {}
