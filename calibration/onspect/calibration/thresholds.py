"""Policies that turn the scores of labelled images into a threshold; a part is ``ng`` where score >= threshold.

Every policy picks from the same candidates: the lowest score itself (all are ``ng``), the midpoint between each two
neighbouring distinct scores, and the next float64 above the highest score (all are ``ok``). A threshold thus never
sits on an observed score that has a lower neighbour: on the calibration images the verdicts are those of the cut at
the score, and a score that differs in its last digits on another machine is still judged alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError

Scores = NDArray[Any]
"""Scores of images, float [n], finite, higher is worse."""


@dataclass(frozen=True)
class Policy:
    """How a threshold is chosen: name is one of the functions below, rate their share (0 to 1), None for max_f1."""

    name: Literal["max_f1", "max_fpr", "min_recall", "quantile"]
    rate: float | None = None

    def describe(self) -> str:
        """Return the policy in words with its number."""
        share = "" if self.rate is None else format_rate(self.rate)
        return {
            "max_f1": "highest F1",
            "max_fpr": f"false rejects at most {share}",
            "min_recall": f"defects caught at least {share}",
            "quantile": f"{share} of good images pass",
        }[self.name]


def format_rate(rate: float) -> str:
    """Return a share of 1 in percent, such as ``0.5%`` for 0.005, without digits that say nothing."""
    return f"{rate * 100:.10g}%"


def check_policy(policy: Policy, good: int, defective: int) -> None:
    """Raise DatasetError where a policy cannot work with so many good and defective images."""
    if not good:
        raise DatasetError(
            f"there are {defective} defective images and no good ones; a threshold needs good images: add some"
        )
    if policy.name in ("max_f1", "min_recall") and not defective:
        raise DatasetError(
            f"--{policy.name.replace('_', '-')} needs defective images, and there are {good} good ones only; "
            "use --quantile 99%, which needs good images only"
        )


def choose_threshold(policy: Policy, good: Scores, defective: Scores) -> float:
    """Return the threshold that a policy asks for, from the scores of good and of defective images.

    Raises DatasetError as `check_policy` does, and where two or more images all have the same score, so that no
    threshold tells any of them apart.
    """
    check_policy(policy, len(good), len(defective))
    every = np.concatenate([good, defective])
    if len(every) > 1 and every.min() == every.max():
        raise DatasetError(
            f"all {len(every)} images have the same score, {float(every[0]):.6g}: the model cannot tell them apart; "
            "check that the images differ, and train again if they do"
        )
    if policy.name == "max_f1" or policy.rate is None:
        return max_f1(good, defective)
    if policy.name == "quantile":
        return quantile(good, policy.rate)
    return (max_fpr if policy.name == "max_fpr" else min_recall)(good, defective, policy.rate)


def max_f1(good: Scores, defective: Scores) -> float:
    """Return the threshold with the highest F1 (defective is positive); of several, the lowest: it catches most.

    >>> max_f1(np.array([1.0, 2.0]), np.array([4.0, 5.0]))
    3.0
    """
    thresholds = _candidates(np.concatenate([good, defective]))
    caught, rejected = _count_reaching(defective, thresholds), _count_reaching(good, thresholds)
    return float(thresholds[np.argmax(2 * caught / (caught + rejected + len(defective)))])


def max_fpr(good: Scores, defective: Scores, rate: float) -> float:
    """Return the lowest threshold that rejects at most the share `rate` of the good images: the best recall there.

    rate is 0 to 1 and may be reached exactly. defective may be empty; its scores only place the threshold between
    neighbours. Tied good scores fall together: where rejecting all of them would be too many, none is rejected.

    >>> max_fpr(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5]), 0.25)
    3.25
    """
    thresholds = _candidates(np.concatenate([good, defective]))
    return float(thresholds[np.argmax(_count_reaching(good, thresholds) / len(good) <= rate)])


def min_recall(good: Scores, defective: Scores, rate: float) -> float:
    """Return the highest threshold that catches at least the share `rate` of the defective images.

    rate is 0 to 1 and may be reached exactly. Tied defective scores are caught together.

    >>> min_recall(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 1.0)
    2.5
    """
    thresholds = _candidates(np.concatenate([good, defective]))
    return float(thresholds[np.flatnonzero(_count_reaching(defective, thresholds) / len(defective) >= rate)[-1]])


def quantile(good: Scores, rate: float) -> float:
    """Return the lowest threshold that lets at least the share `rate` of the good images pass.

    Of n good images the k = ceil(rate * n) lowest pass, and the threshold lies midway between the k-th and the next
    higher good score; where k is n it is the next float64 above the highest. Scores tied with the k-th pass as well.
    rate is above 0, at most 1.

    >>> quantile(np.array([1.0, 2.0, 3.0, 4.0]), 0.75)
    3.5
    """
    thresholds = _candidates(good)
    passed = len(good) - _count_reaching(good, thresholds)
    return float(thresholds[np.argmax(passed / len(good) >= rate)])


def _candidates(scores: Scores) -> NDArray[np.float64]:
    """Return every threshold worth trying, ascending."""
    distinct = np.unique(np.asarray(scores, np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    middle = np.where(middle > lower, middle, upper)  # between neighbouring float64 there is none
    return np.concatenate([distinct[:1], middle, [np.nextafter(distinct[-1], np.inf)]])


def _count_reaching(scores: Scores, thresholds: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return how many scores are >= each threshold."""
    ordered = np.sort(np.asarray(scores, np.float64))
    return np.asarray(len(ordered) - np.searchsorted(ordered, thresholds, side="left"), np.intp)
