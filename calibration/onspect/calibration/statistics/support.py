"""What a calibration's images can support of what was asked for, and what they cannot."""

from __future__ import annotations

import math

import numpy as np

from onspect.calibration.metrics.image import Confusion, Scores
from onspect.calibration.review import Band
from onspect.calibration.statistics import intervals
from onspect.calibration.statistics.bootstrap import (
    choose_drawn_thresholds,
    count_images,
    draw_images,
    measure_drawn_areas,
)
from onspect.calibration.statistics.intervals import (
    CONFIDENCE,
    Interval,
    area_interval,
    log_odds_interval,
    lower_bound,
    normal_aupr,
    percentile_interval,
    quantile_interval,
    rate_interval,
    upper_bound,
    widen_interval,
)
from onspect.calibration.thresholds import Policy, choose_threshold, format_rate


def find_unsupported_claims(policy: Policy, band: Band | None, confusion: Confusion) -> list[str]:
    """Return in words what was asked for of threshold and review band that so many images do not support."""
    found = [find_unsupported_claim(policy, confusion), find_unsupported_band(band, confusion)]
    return [claim for claim in found if claim is not None]


def find_unsupported_claim(policy: Policy, confusion: Confusion) -> str | None:
    """Return in words what was asked for and what so many images support at best, or None where they support it.

    A limit on false rejects is supported where their rate's one-sided 95% upper bound is within it, a demand on recall
    where its lower bound is. The conformal policy makes its promise by itself.
    """
    if policy.rate is None or policy.name == "conformal":
        return None
    if policy.name == "min_recall":
        return _find_unsupported_demand(policy.rate, "catch", "caught", confusion.true_ng, confusion.defective)
    limit, lead = policy.rate, "you asked for"
    if policy.name != "max_fpr":
        limit, lead = 1.0 - policy.rate, f"{format_rate(policy.rate)} of good images passing means"
    return find_unsupported_limit(
        limit, f"{lead} at most {_percent(limit)} false rejects", "rejected", confusion.false_ng, confusion.good
    )


def find_unsupported_band(band: Band | None, confusion: Confusion) -> str | None:
    """Return in words what was asked for of the review band and is not supported, as `find_unsupported_claim` does."""
    if band is None or band.rate is None:
        return None
    if band.name == "review_recall":
        seen = confusion.true_ng + confusion.review_defective
        return _find_unsupported_demand(band.rate, "catch or review", "caught or reviewed", seen, confusion.defective)
    lead = f"you asked to review at most {_percent(band.rate)} of good parts"
    return find_unsupported_limit(band.rate, lead, "reviewed", confusion.review_good, confusion.good)


def find_unsupported_limit(limit: float, lead: str, what: str, count: int, good: int) -> str | None:
    """Return in words that count of so many good images do not support a limit on their share; None where they do.

    lead says what was asked for, what says what the counted ones are, such as ``rejected``.
    """
    bound = upper_bound(count, good)
    if bound <= limit:
        return None
    needed = _images_without_failure(limit)
    return (
        f"{lead}; {good} good image{'s' * (good != 1)}, {count} of them {what}, "
        f"support at best {_percent(bound)} with {CONFIDENCE:.0%} confidence"
        + (f"; {needed} good images with none {what} would support it" if needed else "")
    )


def _find_unsupported_demand(demand: float, verb: str, what: str, count: int, defective: int) -> str | None:
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


def measure_rates(confusion: Confusion, *, banded: bool) -> dict[str, Interval]:
    """Return the exact 95% intervals of ``fpr`` and ``recall``, each where there are images for it.

    With a review band (banded) also those of ``review``, the share of good parts that it sends to a person, and of
    ``escapes``, the share of defective parts that pass.
    """
    found = {}
    if confusion.good:
        found["fpr"] = rate_interval(confusion.false_ng, confusion.good)
    if confusion.defective:
        found["recall"] = rate_interval(confusion.true_ng, confusion.defective)
    if banded and confusion.good:
        found["review"] = rate_interval(confusion.review_good, confusion.good)
    if banded and confusion.defective:
        found["escapes"] = rate_interval(confusion.false_ok, confusion.defective)
    return found


def measure_area_intervals(good: Scores, defective: Scores) -> dict[str, Interval]:
    """Return the 95% intervals of ``auroc`` and ``aupr``; none where good or defective images are missing.

    That of the AUROC is `area_interval`; that of the AUPR is the bootstrap's, on the scale of log-odds. Where no set of
    images drawn anew shows another AUROC, it follows from that of the AUROC, as for normal scores.
    """
    if not len(good) or not len(defective):
        return {}
    ((auroc, aupr),) = measure_drawn_areas(count_images(good, defective)).tolist()
    draws = draw_images(good, defective, intervals.RESAMPLES)
    of_auroc, of_aupr = np.concatenate([measure_drawn_areas(batch) for batch in draws]).T
    low, high = area_interval(good, defective)
    if np.ptp(of_auroc) == 0.0:
        share = len(defective) / (len(good) + len(defective))
        ends = (normal_aupr(low, share), normal_aupr(high, share))
        return {"auroc": (low, high), "aupr": (min(aupr, ends[0]), max(aupr, ends[1]))}
    step = 1.0 / (len(defective) * (len(defective) + 1))  # one good image above the lowest defective one
    return {
        "auroc": (min(low, auroc), max(high, auroc)),
        "aupr": log_odds_interval(min(1.0, aupr), of_aupr, step),
    }


def measure_threshold_interval(policy: Policy, good: Scores, defective: Scores) -> dict[str, Interval]:
    """Return the 95% interval of the ``threshold`` itself: where it would lie if it were chosen on all such parts.

    For a policy that wants a share of good or of defective images on one side it is exact, and infinite at an end
    that so few images cannot bound; for the others it is the bootstrap's, two scores wider. Nothing is returned where
    neither end can be had: for one set by hand, or where images drawn anew can all have one score or always give the
    same threshold.
    """
    if policy.value is not None:
        return {}
    if policy.rate is not None:
        low, high = _bound_share(policy.name, policy.rate, good, defective)
        chosen = choose_threshold(policy, good, defective)
        return {} if low == -math.inf and high == math.inf else {"threshold": (min(low, chosen), max(high, chosen))}
    if not len(good) or not len(defective):
        return {}
    draws = [choose_drawn_thresholds(policy, batch) for batch in draw_images(good, defective, intervals.RESAMPLES)]
    thresholds = [values for values in draws if values is not None]
    if len(thresholds) < len(draws):
        return {}
    low, high = percentile_interval(np.concatenate(thresholds))
    return {"threshold": widen_interval((low, high), np.concatenate([good, defective]))} if low < high else {}


def _bound_share(name: str, rate: float, good: Scores, defective: Scores) -> Interval:
    if name == "min_recall":
        return quantile_interval(defective, 1.0 - rate)
    return quantile_interval(good, rate if name == "quantile" else 1.0 - rate)
