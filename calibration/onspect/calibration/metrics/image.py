"""What a model is worth, from the scores of labelled images: figures of the ranking, and rates at a threshold.

`IMAGE_METRICS` and `RATES` list them; tables, JSON and report are made from these lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.statistics.bootstrap import aupr_interval
from onspect.calibration.statistics.intervals import Interval, area_interval, rate_interval
from onspect.runtime.conformal import Scores
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.schema import Threshold


@dataclass(frozen=True)
class Metric:
    """A figure without a threshold: of scores of good and of defective images, or of error maps and masks."""

    name: str
    """In JSON."""

    title: str
    """In tables and in the report."""

    words: str
    """What it is, in a few words."""

    measure: Callable[..., float]
    """From scores of good and of defective images, neither of them empty, or from `PixelCurves`."""

    interval: Callable[..., Interval] | None = None
    """Its 95% interval, from the same; None without one."""

    format: str = ".4f"

    def show(self, value: float | None, missing: str = "-") -> str:
        """Return a value as text."""
        return missing if value is None else f"{value:{self.format}}"


@dataclass(frozen=True)
class Areas:
    """The metrics of a set of images."""

    values: dict[str, float | None]
    """By name; all None where good or defective images, or pixels, are missing."""

    reason: str | None = None
    """Why there are none."""

    @property
    def auroc(self) -> float | None:
        """The area under the ROC curve, 0 to 1."""
        return self.values["auroc"]

    @property
    def aupr(self) -> float | None:
        """The average precision, 0 to 1; defective is positive."""
        return self.values["aupr"]

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the values by name, and the reason."""
        return {**self.values, "reason": self.reason}


@dataclass(frozen=True)
class Curves:
    """Points of the ROC and PR curves, as scikit-learn's roc_curve and precision_recall_curve give them; float [n]."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


Noun = Literal["image", "part"]
"""What is counted: each image, or each part by its worst image."""


@dataclass(frozen=True)
class Confusion:
    """How many images, or parts, were judged how: ng (rejected) or ok (passed), truly (true_) or by mistake (false_).

    review_good, review_defective: sent to a person, and so neither rejected nor passed.
    """

    true_ng: int
    false_ng: int
    true_ok: int
    false_ok: int
    review_good: int = 0
    review_defective: int = 0
    noun: Noun = field(default="image", compare=False)
    """What is counted, for sentences."""

    @property
    def good(self) -> int:
        """The good images."""
        return self.false_ng + self.review_good + self.true_ok

    @property
    def defective(self) -> int:
        """The defective images."""
        return self.true_ng + self.review_defective + self.false_ok

    @property
    def recall(self) -> float | None:
        """The share of defective images that were rejected, None where there are none."""
        return _divide(self.true_ng, self.defective)

    @property
    def fpr(self) -> float | None:
        """The share of good images that were rejected, None where there are none."""
        return _divide(self.false_ng, self.good)

    @property
    def review(self) -> float | None:
        """The share of good images that go to a person, None where there are none."""
        return _divide(self.review_good, self.good)

    @property
    def escapes(self) -> float | None:
        """The share of defective images that passed, None where there are none: 1 - recall, less what is reviewed."""
        return _divide(self.false_ok, self.defective)

    @property
    def precision(self) -> float | None:
        """The share of rejected images that are defective, None where none was rejected."""
        return _divide(self.true_ng, self.true_ng + self.false_ng)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall, None where nothing was defective or rejected."""
        return _divide(2 * self.true_ng, self.true_ng + self.false_ng + self.defective)


def _measure_auroc(good: Scores, defective: Scores) -> float:
    from sklearn.metrics import roc_auc_score  # a second to load, which not every command has

    return float(roc_auc_score(*_label(good, defective)))


def _measure_aupr(good: Scores, defective: Scores) -> float:
    from sklearn.metrics import average_precision_score

    return min(1.0, float(average_precision_score(*_label(good, defective))))


IMAGE_METRICS = (
    Metric("auroc", "AUROC", "area under the ROC curve", _measure_auroc, area_interval),
    Metric("aupr", "AUPR", "average precision, defective is positive", _measure_aupr, aupr_interval),
)
"""Every image metric, in the order in which they are shown."""


def measure_areas(good: Scores, defective: Scores) -> Areas:
    """Return the image metrics of defective against good images.

    >>> measure_areas(np.array([0.1, 0.4]), np.array([0.35, 0.8])).auroc
    0.75
    """
    if not len(good) or not len(defective):
        missing = "good" if not len(good) else "defective"
        names = (metric.name for metric in IMAGE_METRICS)
        return Areas(dict.fromkeys(names), f"there are no {missing} images to compare with")
    return Areas({metric.name: metric.measure(good, defective) for metric in IMAGE_METRICS})


def measure_area_intervals(good: Scores, defective: Scores) -> dict[str, Interval]:
    """Return the 95% intervals of the image metrics by name; none where good or defective images are missing."""
    if not len(good) or not len(defective):
        return {}
    return {metric.name: metric.interval(good, defective) for metric in IMAGE_METRICS if metric.interval}


def trace_curves(good: Scores, defective: Scores) -> Curves:
    """Return the ROC and PR curves; both kinds of image must be there."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth, scores = _label(good, defective)
    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    return Curves(false_positive_rate, true_positive_rate, precision, recall)


@dataclass(frozen=True)
class CostCurve:
    """What mistakes cost, for each weight of an escape over a false reject; float64 [n] each.

    weight: (cost of an escape x share of defective parts) / (cost of a false reject x share of good parts). stamped: at
    the file's threshold, as a multiple of the cheaper of rejecting every part and passing every part. reviewed: the
    same where a person catches every defect of the review band, for nothing. best: at the threshold that would be
    cheapest on these images (Drummond and Holte, "Cost curves", Machine Learning 65, 2006, with another axis).
    """

    weight: NDArray[np.float64]
    stamped: NDArray[np.float64]
    reviewed: NDArray[np.float64]
    best: NDArray[np.float64]


def trace_cost(curves: Curves, confusion: Confusion) -> CostCurve:
    """Return what the mistakes of a confusion cost, and of the best point of the ROC curve, over four decades."""
    weight = np.logspace(-2, 2, 81)
    alternative = np.minimum(1.0, weight)
    best = np.min(curves.false_positive_rate + weight[:, None] * (1.0 - curves.true_positive_rate), axis=1)
    rejected, caught, escaped = confusion.fpr or 0.0, confusion.recall or 0.0, confusion.escapes or 0.0
    return CostCurve(
        weight=weight,
        stamped=(rejected + weight * (1.0 - caught)) / alternative,
        reviewed=(rejected + weight * escaped) / alternative,
        best=best / alternative,
    )


def count_confusion(good: Scores, defective: Scores, threshold: Threshold, noun: Noun = "image") -> Confusion:
    """Return how good and defective images, or parts, are judged at a threshold, by the runtime's own rule."""
    of_good, of_defective = (
        Counter(decide(float(score), threshold) for score in scores) for scores in (good, defective)
    )
    return Confusion(
        true_ng=of_defective["ng"],
        false_ng=of_good["ng"],
        true_ok=of_good["ok"],
        false_ok=of_defective["ok"],
        review_good=of_good["review"],
        review_defective=of_defective["review"],
        noun=noun,
    )


@dataclass(frozen=True)
class RateMetric:
    """A share of images at a threshold."""

    name: str
    """In JSON, and a property of `Confusion`."""

    cause: str
    """Why it is undefined, where it is."""

    count: Callable[[Confusion], tuple[int, int]] | None = None
    """How many images of how many; None for a figure that is no rate of these, and has no exact interval."""

    banded: bool = False
    """Whether its interval only matters with a review band."""


_NO_GOOD = "there are no good images"
_NO_DEFECTS = "there are no defective images"

RATES = (
    RateMetric("fpr", _NO_GOOD, lambda found: (found.false_ng, found.good)),
    RateMetric("recall", _NO_DEFECTS, lambda found: (found.true_ng, found.defective)),
    RateMetric("review", _NO_GOOD, lambda found: (found.review_good, found.good), banded=True),
    RateMetric("escapes", _NO_DEFECTS, lambda found: (found.false_ok, found.defective), banded=True),
    RateMetric("precision", "no image was rejected"),
    RateMetric("f1", "no image is defective or was rejected"),
)
"""Every rate at a threshold; ``review`` is the share of good parts that a person sees."""


def measure_rates(confusion: Confusion, *, banded: bool) -> dict[str, Interval]:
    """Return the exact 95% intervals of the rates by name, each where there are images for it.

    banded: with a review band; only then those of ``review`` and ``escapes``.
    """
    counts = {rate.name: rate.count(confusion) for rate in RATES if rate.count and (banded or not rate.banded)}
    return {name: rate_interval(count, total) for name, (count, total) in counts.items() if total}


def _label(good: Scores, defective: Scores) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    truth = np.concatenate([np.zeros(len(good), np.int8), np.ones(len(defective), np.int8)])
    return truth, np.concatenate([good, defective]).astype(np.float64)


def _divide(part: int, whole: int) -> float | None:
    return part / whole if whole else None
