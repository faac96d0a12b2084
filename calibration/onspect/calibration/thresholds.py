"""Policies that turn the scores of labelled images into a threshold; a part is ``ng`` where score >= threshold.

Every policy picks from the same candidates: the lowest score itself (all are ``ng``), the midpoint between each two
neighbouring distinct scores, and the next float64 above the highest score (all are ``ok``). A threshold thus never
sits on an observed score that has a lower neighbour: on the calibration images the verdicts are those of the cut at
the score, and a score that differs in its last digits on another machine is still judged alike.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.conformal import (
    Scores,
    candidates,
    check_conformal,
    conformal,
    conformal_share,
    count_reaching,
    format_rate,
    quantile,
)
from onspect.runtime.errors import DatasetError, ModelFileError
from onspect.runtime.model.schema import Rule

PolicyName = Literal["max_f1", "youden", "cost", "max_fpr", "min_recall", "quantile", "conformal", "manual"]


__all__ = [
    "Policy",
    "PolicyName",
    "Scores",
    "candidates",
    "check_policy",
    "choose_threshold",
    "conformal",
    "conformal_share",
    "cost",
    "count_reaching",
    "format_rate",
    "max_f1",
    "max_fpr",
    "min_recall",
    "quantile",
    "weigh_costs",
    "youden",
]


@dataclass(frozen=True)
class Policy:
    """How a threshold is chosen: name is one of the functions below, with what that function needs beside scores.

    rate: the share of max_fpr, min_recall, quantile and conformal, 0 to 1. costs: of one false reject and one escape,
    for cost. prevalence: the line's share of defective parts, for cost, 0 to 1; None takes the calibration images'.
    value: the threshold itself, for manual.
    """

    name: PolicyName
    rate: float | None = None
    costs: tuple[float, float] | None = None
    prevalence: float | None = None
    value: float | None = None

    @classmethod
    def from_rule(cls, rule: Rule) -> Policy:
        """Return the policy that a model file names; raises ModelFileError where this release has no such policy."""
        if rule.name not in get_args(PolicyName):
            raise ModelFileError(f"the file's threshold was chosen by {rule.name!r}, which this onspect does not know")
        return cls(**dataclasses.asdict(rule))

    def describe(self) -> str:
        """Return the policy in words with its number."""
        share = "" if self.rate is None else format_rate(self.rate)
        return {
            "max_f1": "highest F1",
            "youden": "highest recall minus false-reject rate (Youden's J)",
            "cost": self._describe_costs(),
            "max_fpr": f"false rejects at most {share}",
            "min_recall": f"defects caught at least {share}",
            "quantile": f"{share} of good images pass",
            "manual": "set by hand" if self.value is None else f"set by hand to {self.value:g}",
            "conformal": f"false rejects of new good parts at most {share} (split conformal)",
        }[self.name]

    def _describe_costs(self) -> str:
        if self.costs is None:
            return ""
        share = "as among these images" if self.prevalence is None else format_rate(self.prevalence)
        return (
            f"lowest cost, {self.costs[0]:g} for a false reject and {self.costs[1]:g} for an escape, "
            f"defective parts {share}"
        )


def check_policy(policy: Policy, good: int, defective: int) -> None:
    """Raise DatasetError where a policy cannot work with so many good and defective images."""
    if not good:
        raise DatasetError(
            f"there are {defective} defective images and no good ones; a threshold needs good images: add some"
        )
    if policy.name == "conformal" and policy.rate is not None:
        check_conformal(good, policy.rate)
    if policy.name in ("max_f1", "youden", "cost", "min_recall") and not defective:
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
    if policy.value is not None:
        return policy.value
    every = np.concatenate([good, defective])
    if len(every) > 1 and every.min() == every.max():
        raise DatasetError(
            f"all {len(every)} images have the same score, {float(every[0]):.6g}: the model cannot tell them apart; "
            "check that the images differ, and train again if they do"
        )
    if policy.name == "youden":
        return youden(good, defective)
    if policy.costs is not None:
        return cost(good, defective, policy.costs, policy.prevalence)
    if policy.rate is None:
        return max_f1(good, defective)
    if policy.name in ("quantile", "conformal"):
        return (quantile if policy.name == "quantile" else conformal)(good, policy.rate)
    return (max_fpr if policy.name == "max_fpr" else min_recall)(good, defective, policy.rate)


def max_f1(good: Scores, defective: Scores) -> float:
    """Return the threshold with the highest F1 (defective is positive); of several, the lowest: it catches most.

    >>> max_f1(np.array([1.0, 2.0]), np.array([4.0, 5.0]))
    3.0
    """
    thresholds = candidates(np.concatenate([good, defective]))
    caught, rejected = count_reaching(defective, thresholds), count_reaching(good, thresholds)
    return float(thresholds[np.argmax(2 * caught / (caught + rejected + len(defective)))])


def youden(good: Scores, defective: Scores) -> float:
    """Return the threshold with the highest recall minus false-reject rate; of several, the lowest.

    >>> youden(np.array([1.0, 2.0]), np.array([4.0, 5.0]))
    3.0
    """
    return cost(good, defective, (1.0, 1.0), 0.5)


def cost(good: Scores, defective: Scores, costs: tuple[float, float], prevalence: float | None) -> float:
    """Return the threshold with the lowest expected cost a part; of several, the lowest: it catches most.

    costs are those of one false reject and of one escape, above 0; prevalence is the share of defective parts that
    the line will see, 0 to 1, or None for the share among these scores.

    >>> cost(np.array([1.0, 2.0, 6.0]), np.array([4.0, 7.0]), (1.0, 100.0), 0.01)
    3.0
    >>> cost(np.array([1.0, 2.0, 6.0]), np.array([4.0, 7.0]), (100.0, 1.0), 0.01)
    6.5
    """
    thresholds = candidates(np.concatenate([good, defective]))
    share = len(defective) / (len(good) + len(defective)) if prevalence is None else prevalence
    rejected = count_reaching(good, thresholds) / len(good)
    escaped = 1.0 - count_reaching(defective, thresholds) / len(defective)
    expected = weigh_costs(rejected, escaped, costs, share)
    return float(thresholds[np.argmin(np.round(expected, 12))])  # so that sums in another order tie as they should


def weigh_costs(
    rejected: NDArray[np.float64],
    escaped: NDArray[np.float64],
    costs: tuple[float, float],
    prevalence: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the expected cost a part, from the shares of good parts rejected and of defective parts passed."""
    return costs[0] * (1.0 - prevalence) * rejected + costs[1] * prevalence * escaped


def max_fpr(good: Scores, defective: Scores, rate: float) -> float:
    """Return the lowest threshold that rejects at most the share `rate` of the good images: the best recall there.

    rate is 0 to 1 and may be reached exactly. defective may be empty; its scores only place the threshold between
    neighbours. Tied good scores fall together: where rejecting all of them would be too many, none is rejected.

    >>> max_fpr(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5]), 0.25)
    3.25
    """
    thresholds = candidates(np.concatenate([good, defective]))
    return float(thresholds[np.argmax(count_reaching(good, thresholds) / len(good) <= rate)])


def min_recall(good: Scores, defective: Scores, rate: float) -> float:
    """Return the highest threshold that catches at least the share `rate` of the defective images.

    rate is 0 to 1 and may be reached exactly. Tied defective scores are caught together.

    >>> min_recall(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 1.0)
    2.5
    """
    thresholds = candidates(np.concatenate([good, defective]))
    return float(thresholds[np.flatnonzero(count_reaching(defective, thresholds) / len(defective) >= rate)[-1]])
