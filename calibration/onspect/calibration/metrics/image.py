"""What a model is worth, from the scores of labelled images: areas under curves and the confusion at a threshold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.schema import Threshold

Scores = NDArray[Any]
"""Scores of images, float [n], finite, higher is worse."""


@dataclass(frozen=True)
class Areas:
    """auroc: area under the ROC curve. aupr: average precision, defective is positive. Both 0 to 1.

    Both are None where good or defective images are missing, and reason says which.
    """

    auroc: float | None
    aupr: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Curves:
    """Points of the ROC and PR curves, as scikit-learn's roc_curve and precision_recall_curve give them; float [n]."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


@dataclass(frozen=True)
class Confusion:
    """How many images were judged how: ng (rejected) or ok (passed), truly (true_) or by mistake (false_).

    review_good, review_defective: sent to a person, and so neither rejected nor passed.
    """

    true_ng: int
    false_ng: int
    true_ok: int
    false_ok: int
    review_good: int = 0
    review_defective: int = 0

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


def measure_areas(good: Scores, defective: Scores) -> Areas:
    """Return AUROC and AUPR of defective against good images.

    >>> measure_areas(np.array([0.1, 0.4]), np.array([0.35, 0.8])).auroc
    0.75
    """
    if not len(good) or not len(defective):
        missing = "good" if not len(good) else "defective"
        return Areas(None, None, f"there are no {missing} images to compare with")
    from sklearn.metrics import average_precision_score, roc_auc_score  # a second to load, which not every command has

    truth, scores = _label(good, defective)
    return Areas(float(roc_auc_score(truth, scores)), min(1.0, float(average_precision_score(truth, scores))))


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


def count_confusion(good: Scores, defective: Scores, threshold: Threshold) -> Confusion:
    """Return how good and defective images are judged at a threshold, by the runtime's own rule."""
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
    )


def _label(good: Scores, defective: Scores) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    truth = np.concatenate([np.zeros(len(good), np.int8), np.ones(len(defective), np.int8)])
    return truth, np.concatenate([good, defective]).astype(np.float64)


def _divide(part: int, whole: int) -> float | None:
    return part / whole if whole else None
