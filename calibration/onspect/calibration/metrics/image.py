"""Metrics of a model from the scores of labelled images: without a threshold, and rates at a threshold.

`IMAGE_METRICS` and `RATES` list them. Tables, JSON and report are made from these lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.statistics.bootstrap import aupr_interval
from onspect.calibration.statistics.intervals import Interval, area_interval, rate_interval
from onspect.runtime.conformal import Scores
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.schema import Threshold


@dataclass(frozen=True)
class Metric:
    """A metric without a threshold, of scores of good and defective images, or of error maps and masks."""

    name: str
    """Name in JSON."""

    title: str
    """Name in tables and in the report."""

    words: str
    """Description in a few words."""

    measure: Callable[..., float]
    """Calculates the metric from scores of good and of defective images, at least one each, or from `PixelCurves`."""

    interval: Callable[..., Interval] | None = None
    """Calculates its 95% interval from the same arguments; None for a metric without an interval."""

    format: str = ".4f"
    """Format specification of its values in text."""

    def show(self, value: float | None, missing: str = "-") -> str:
        """Return a value as text.

        Parameters
        ----------
        value
            A value of the metric, or None if it is undefined.
        missing
            Text for None.

        Returns
        -------
        str
            Such as ``0.9876``.
        """
        return missing if value is None else f"{value:{self.format}}"


@dataclass(frozen=True)
class Areas:
    """Values of the metrics of a set of images."""

    values: dict[str, float | None]
    """Values by name, 0 to 1; all None if good or defective images, or pixels, are missing."""

    reason: str | None = None
    """Reason why the values are undefined; None if they are numbers."""

    @property
    def auroc(self) -> float | None:
        """Area under the ROC curve, 0 to 1, or None."""
        return self.values["auroc"]

    @property
    def aupr(self) -> float | None:
        """Average precision, 0 to 1, with defective as the positive class, or None."""
        return self.values["aupr"]

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the values as a JSON object.

        Returns
        -------
        dict[str, float | str | None]
            Values by name, and the reason.
        """
        return {**self.values, "reason": self.reason}


@dataclass(frozen=True)
class Curves:
    """Points of the ROC and PR curves, as roc_curve and precision_recall_curve of scikit-learn return them; shares of
    1.
    """

    false_positive_rate: NDArray[np.float64]
    """ROC: share of good images that are rejected, float64 [n], ascending."""
    true_positive_rate: NDArray[np.float64]
    """ROC: share of defective images that are rejected, float64 [n], ascending."""
    precision: NDArray[np.float64]
    """PR: share of rejected images that are defective, float64 [m]."""
    recall: NDArray[np.float64]
    """PR: share of defective images that are rejected, float64 [m], descending."""


Noun = Literal["image", "part"]
"""Unit of a count: images, or parts by their worst image."""


@dataclass(frozen=True)
class Confusion:
    """Number of images or parts by label and verdict."""

    true_ng: int
    """Defective ones that were rejected (``ng``)."""
    false_ng: int
    """Good ones that were rejected."""
    true_ok: int
    """Good ones that passed (``ok``)."""
    false_ok: int
    """Defective ones that passed."""
    review_good: int = 0
    """Good ones that were sent to a person, and so neither rejected nor passed."""
    review_defective: int = 0
    """Defective ones that were sent to a person."""
    noun: Noun = field(default="image", compare=False)
    """Unit of the counts, for sentences."""

    @property
    def counts(self) -> dict[str, Any]:
        """The numbers of parts by name."""
        return {name: count for name, count in vars(self).items() if name != "noun"}

    @property
    def good(self) -> int:
        """Number of good images."""
        return self.false_ng + self.review_good + self.true_ok

    @property
    def defective(self) -> int:
        """Number of defective images."""
        return self.true_ng + self.review_defective + self.false_ok

    @property
    def recall(self) -> float | None:
        """Share of the defective images that were rejected, 0 to 1; None if there are no defective images."""
        return _divide(self.true_ng, self.defective)

    @property
    def fpr(self) -> float | None:
        """Share of the good images that were rejected, 0 to 1; None if there are no good images."""
        return _divide(self.false_ng, self.good)

    @property
    def review(self) -> float | None:
        """Share of the good images that are sent to a person, 0 to 1; None if there are no good images."""
        return _divide(self.review_good, self.good)

    @property
    def escapes(self) -> float | None:
        """Share of the defective images that passed, 0 to 1: 1 - recall - reviewed; None if there are no defective
        images.
        """
        return _divide(self.false_ok, self.defective)

    @property
    def precision(self) -> float | None:
        """Share of the rejected images that are defective, 0 to 1; None if no image was rejected."""
        return _divide(self.true_ng, self.true_ng + self.false_ng)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 to 1; None if no image is defective or was rejected."""
        return _divide(2 * self.true_ng, self.true_ng + self.false_ng + self.defective)


def _measure_auroc(good: Scores, defective: Scores) -> float:
    from sklearn.metrics import roc_auc_score  # takes a second to load, and not every command needs it

    return float(roc_auc_score(*_label(good, defective)))


def _measure_aupr(good: Scores, defective: Scores) -> float:
    from sklearn.metrics import average_precision_score

    return min(1.0, float(average_precision_score(*_label(good, defective))))


IMAGE_METRICS = (
    Metric("auroc", "AUROC", "area under the ROC curve", _measure_auroc, area_interval),
    Metric("aupr", "AUPR", "average precision, defective is positive", _measure_aupr, aupr_interval),
)
"""All image metrics, in the order in which they are shown."""


def measure_areas(good: Scores, defective: Scores) -> Areas:
    """Return the image metrics of defective against good images.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].

    Returns
    -------
    Areas
        Values by name; None with a reason if good or defective scores are missing.

    Examples
    --------
    >>> measure_areas(np.array([0.1, 0.4]), np.array([0.35, 0.8])).auroc
    0.75
    """
    if not len(good) or not len(defective):
        missing = "good" if not len(good) else "defective"
        names = (metric.name for metric in IMAGE_METRICS)
        return Areas(dict.fromkeys(names), f"there are no {missing} images to compare with")
    return Areas({metric.name: metric.measure(good, defective) for metric in IMAGE_METRICS})


def measure_area_intervals(good: Scores, defective: Scores) -> dict[str, Interval]:
    """Return the 95% intervals of the image metrics.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].

    Returns
    -------
    dict[str, Interval]
        Intervals by name; empty if good or defective scores are missing.
    """
    if not len(good) or not len(defective):
        return {}
    return {metric.name: metric.interval(good, defective) for metric in IMAGE_METRICS if metric.interval}


def trace_curves(good: Scores, defective: Scores) -> Curves:
    """Return the ROC and PR curves. There must be good and defective scores.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].

    Returns
    -------
    Curves
        Points of both curves.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth, scores = _label(good, defective)
    false_positive_rate, true_positive_rate, _ = roc_curve(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    return Curves(false_positive_rate, true_positive_rate, precision, recall)


@dataclass(frozen=True)
class CostCurve:
    """Cost of mistakes for each weight of an escape relative to a false reject.

    Costs are multiples of the cheaper of two alternatives: reject every part, or pass every part. See Drummond and
    Holte, "Cost curves", Machine Learning 65, 2006; the axis here is another.
    """

    weight: NDArray[np.float64]
    """(Cost of an escape x share of defective parts) / (cost of a false reject x share of good parts), float64 [n]."""
    stamped: NDArray[np.float64]
    """Cost at the file's threshold, float64 [n], 0 or more."""
    reviewed: NDArray[np.float64]
    """Cost at the file's threshold if a person catches every defect of the review band, at no cost; float64 [n]."""
    best: NDArray[np.float64]
    """Cost at the threshold that is cheapest on these images, float64 [n]."""


def trace_cost(curves: Curves, confusion: Confusion) -> CostCurve:
    """Return the cost of the mistakes of a confusion, and of the best point of the ROC curve.

    Parameters
    ----------
    curves
        ROC curve of the scores.
    confusion
        Counts at the file's threshold.

    Returns
    -------
    CostCurve
        Costs for 81 weights from 0.01 to 100.
    """
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
    """Count the verdicts on good and defective images or parts, by the rule of the runtime.

    Parameters
    ----------
    good
        Scores of the good images or parts, float [n].
    defective
        Scores of the defective images or parts, float [m].
    threshold
        Threshold of the score, with or without a review band.
    noun
        Unit of the counts.

    Returns
    -------
    Confusion
        Number of images or parts by label and verdict.
    """
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
    """Name in JSON, and of a property of `Confusion`."""

    cause: str
    """Text of the reason for an undefined share."""

    count: Callable[[Confusion], tuple[int, int]] | None = None
    """Returns the numerator and the denominator; None for a metric that is not a binomial rate, and has no exact
    interval.
    """

    banded: bool = False
    """Whether its interval is given only with a review band."""


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
"""All rates at a threshold; ``review`` is the share of good parts that a person sees."""


def measure_rates(confusion: Confusion, *, banded: bool) -> dict[str, Interval]:
    """Return the exact 95% intervals of the rates.

    Parameters
    ----------
    confusion
        Number of images or parts by label and verdict.
    banded
        Whether there is a review band. Only then ``review`` and ``escapes`` are included.

    Returns
    -------
    dict[str, Interval]
        Intervals by name. A rate without images is left out.
    """
    counts = {rate.name: rate.count(confusion) for rate in RATES if rate.count and (banded or not rate.banded)}
    return {name: rate_interval(count, total) for name, (count, total) in counts.items() if total}


def _label(good: Scores, defective: Scores) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    truth = np.concatenate([np.zeros(len(good), np.int8), np.ones(len(defective), np.int8)])
    return truth, np.concatenate([good, defective]).astype(np.float64)


def _divide(part: int, whole: int) -> float | None:
    return part / whole if whole else None
