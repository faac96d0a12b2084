"""Policies that choose a threshold from the scores of labelled images. A part is ``ng`` if its score >= threshold.

All policies choose from the same candidates: the lowest score (all are ``ng``), the midpoints between neighbouring
distinct scores, and the next float64 above the highest score (all are ``ok``). Therefore a threshold never equals an
observed score that has a lower neighbour. The scores of another machine can differ in the last digits without a change
of verdicts.

Each policy is a class in `POLICIES`. The commands, `calibrate` and the model file read that table.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.metrics.image import Confusion
from onspect.calibration.rules import NamedRule, OptionSpec
from onspect.calibration.statistics.bootstrap import RESAMPLES, Draws, count_reaching_drawn, draw_images, place_cuts
from onspect.calibration.statistics.intervals import Interval, percentile_interval, quantile_interval, widen_interval
from onspect.calibration.statistics.support import Target, find_unsupported_demand, find_unsupported_limit, format_share
from onspect.runtime.conformal import (
    Scores,
    candidates,
    check_conformal,
    conformal,
    count_reaching,
    format_rate,
    quantile,
)
from onspect.runtime.errors import ChoiceError, DatasetError


@dataclass(frozen=True)
class Policy(NamedRule):
    """Base class of the rules that choose a threshold from the scores of good and of defective images."""

    substitute = "--quantile 99%"

    bounded_by: ClassVar[Literal["good", "defective"] | None] = None
    """Images whose number gives the threshold's exact interval; None if the bootstrap gives it."""

    def check(self, good: int, defective: int) -> None:
        """Check that there are enough images for the policy.

        Parameters
        ----------
        good
            Number of good images or parts, 0 or more.
        defective
            Number of defective images or parts, 0 or more.

        Raises
        ------
        DatasetError
            If there are too few.
        """
        if not good:
            raise DatasetError(
                f"there are {defective} defective images and no good ones; a threshold needs good images: add some"
            )
        super().check(good, defective)

    def choose(self, good: Scores, defective: Scores) -> float:
        """Return the threshold for scores of good and of defective images.

        Parameters
        ----------
        good
            Scores of the good images or parts, float [n].
        defective
            Scores of the defective images or parts, float [m].

        Returns
        -------
        float
            The threshold.

        Raises
        ------
        DatasetError
            If there are too few images, or two or more images all have the same score, so that no threshold separates
            them.
        """
        self.check(len(good), len(defective))
        every = np.concatenate([good, defective])
        if len(every) > 1 and every.min() == every.max():
            raise DatasetError(
                f"all {len(every)} images have the same score, {float(every[0]):.6g}: the model cannot tell them "
                "apart; check that the images differ, and train again if they do"
            )
        return self.pick(good, defective)

    @abstractmethod
    def pick(self, good: Scores, defective: Scores) -> float:
        """Return the threshold, without the checks of `choose`.

        Parameters
        ----------
        good
            Scores of the good images or parts, float [n].
        defective
            Scores of the defective images or parts, float [m].

        Returns
        -------
        float
            The threshold.
        """

    def interval(self, good: Scores, defective: Scores) -> Interval | None:
        """Return the 95% interval of the threshold that the policy would choose on all such parts.

        Parameters
        ----------
        good
            Scores of the good images or parts, float [n].
        defective
            Scores of the defective images or parts, float [m].

        Returns
        -------
        Interval | None
            Lower and upper end. An end that the images are too few to bound is infinite; None if both are.
        """


class _BestCut(Policy):
    """A policy that takes the best cut by a measure. Of equally good cuts it takes the lowest, which catches most.

    The threshold's interval is that of the bootstrap, two scores wider at each end. There is no interval if a bootstrap
    sample can have only one score, or if all samples give the same threshold.
    """

    needs_defects = True

    @abstractmethod
    def rate_cuts(self, caught: Any, rejected: Any, defective: Any, good: Any) -> NDArray[np.float64]:
        """Return how good each cut is, from the number of images that reach it and of all images."""

    def pick(self, good: Scores, defective: Scores) -> float:
        thresholds = candidates(np.concatenate([good, defective]))
        caught, rejected = count_reaching(defective, thresholds), count_reaching(good, thresholds)
        return float(thresholds[np.argmax(self.rate_cuts(caught, rejected, len(defective), len(good)))])

    def choose_drawn(self, draws: Draws) -> NDArray[np.float64] | None:
        """Return the threshold of each bootstrap sample, [draws]; None if a sample has only one score."""
        caught, rejected = count_reaching_drawn(draws.defective), count_reaching_drawn(draws.good)
        values = self.rate_cuts(caught, rejected, caught[:, :1], rejected[:, :1])
        return place_cuts(draws, np.argmax(values, axis=1))

    def interval(self, good: Scores, defective: Scores) -> Interval | None:
        if not len(good) or not len(defective):
            return None
        found = [self.choose_drawn(draws) for draws in draw_images(good, defective, RESAMPLES)]
        thresholds = [values for values in found if values is not None]
        if len(thresholds) < len(found):
            return None
        low, high = percentile_interval(np.concatenate(thresholds))
        return widen_interval((low, high), np.concatenate([good, defective])) if low < high else None


@dataclass(frozen=True)
class MaxF1(_BestCut):
    """The threshold with the highest F1, with defective as the positive class.

    >>> MaxF1().choose(np.array([1.0, 2.0]), np.array([4.0, 5.0]))
    3.0
    """

    name = "max_f1"
    option = OptionSpec("max_f1", "Highest F1.", metavar="")

    def describe(self) -> str:
        return "highest F1"

    def rate_cuts(self, caught: Any, rejected: Any, defective: Any, good: Any) -> NDArray[np.float64]:
        return np.asarray(2 * caught / (caught + rejected + defective))


@dataclass(frozen=True)
class Cost(_BestCut):
    """The threshold with the lowest expected cost per part.

    >>> Cost((1.0, 100.0), 0.01).choose(np.array([1.0, 2.0, 6.0]), np.array([4.0, 7.0]))
    3.0
    >>> Cost((100.0, 1.0), 0.01).choose(np.array([1.0, 2.0, 6.0]), np.array([4.0, 7.0]))
    6.5
    """

    name = "cost"
    option = OptionSpec("cost", "Lowest cost, of a false reject and of an escape, as 1:50.", metavar="FP:FN")

    extra = OptionSpec(
        "prevalence",
        "With --cost: the line's share of defective parts. [default: the share among the images]",
        no_limit=(0, 1),
    )

    costs: tuple[float, float]
    """Cost of one false reject and of one escape, both above 0 and finite."""

    prevalence: float | None = None
    """Share of defective parts on the line, 0 to 1; None for the share among the images."""

    def __post_init__(self) -> None:
        if not all(0.0 < cost < math.inf for cost in self.costs):
            raise ChoiceError(f"the costs are {self.costs}; give two numbers above 0, such as (1, 50)")

    def describe(self) -> str:
        share = "as among these images" if self.prevalence is None else format_rate(self.prevalence)
        reject, escape = self.costs
        return f"lowest cost, {reject:g} for a false reject and {escape:g} for an escape, defective parts {share}"

    def rate_cuts(self, caught: Any, rejected: Any, defective: Any, good: Any) -> NDArray[np.float64]:
        share = defective / (good + defective) if self.prevalence is None else self.prevalence
        false_rejects, escapes = rejected / good, 1.0 - caught / defective
        expected = self.costs[0] * (1.0 - share) * false_rejects + self.costs[1] * share * escapes
        return np.asarray(-np.round(expected, 12))  # so that equal costs tie in spite of rounding


@dataclass(frozen=True)
class Youden(_BestCut):
    """The threshold with the highest recall minus false-reject rate (Youden, "Index for rating diagnostic tests",
    Cancer 3, 1950).

    >>> Youden().choose(np.array([1.0, 2.0]), np.array([4.0, 5.0]))
    3.0
    """

    name = "youden"
    option = OptionSpec("youden", "Highest recall minus false-reject rate.", metavar="")

    def describe(self) -> str:
        return "highest recall minus false-reject rate (Youden's J)"

    def rate_cuts(self, caught: Any, rejected: Any, defective: Any, good: Any) -> NDArray[np.float64]:
        return Cost((1.0, 1.0), 0.5).rate_cuts(caught, rejected, defective, good)


@dataclass(frozen=True)
class _Rate(Policy):
    """A policy with a rate. The threshold's interval is exact; an end that the images cannot bound is infinite."""

    rate: float
    """Share of 1."""

    bounded_by: ClassVar[Literal["good", "defective"]] = "good"

    @property
    def passing(self) -> float:
        """Share of the images named by `bounded_by` that must pass, 0 to 1."""
        return 1.0 - self.rate

    def interval(self, good: Scores, defective: Scores) -> Interval | None:
        low, high = quantile_interval(good if self.bounded_by == "good" else defective, self.passing)
        chosen = self.choose(good, defective)
        return None if low == -math.inf and high == math.inf else (min(low, chosen), max(high, chosen))


@dataclass(frozen=True)
class _FalseRejectLimit(_Rate):
    """A policy that limits the share of good parts that are rejected."""

    @property
    def limit(self) -> float:
        """Highest share of good parts that may be rejected, 0 to 1."""
        return self.rate

    _lead: ClassVar[str] = "you asked for"

    def support(self, confusion: Confusion) -> str | None:
        lead = f"{self._lead.format(rate=format_rate(self.rate))} at most {{limit}} false rejects"
        return find_unsupported_limit(self.limit, lead, "rejected", confusion.false_ng, confusion.good, confusion.noun)

    def target(self, confusion: Confusion, *, banded: bool) -> Target | None:
        if confusion.fpr is None:
            return None
        asked = f"at most {format_share(self.limit)} of good parts rejected"
        return Target.at_most(asked, self.limit, confusion.false_ng, confusion.good)


@dataclass(frozen=True)
class MaxFpr(_FalseRejectLimit):
    """The lowest threshold that rejects at most the share `rate` of the good images. Its recall is the best at this
    limit.

    The rate may be reached exactly. Defective images are not needed: their scores only place the threshold between
    neighbours. Equal good scores are rejected together or not at all.

    >>> MaxFpr(0.25).choose(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5]))
    3.25
    """

    name = "max_fpr"
    option = OptionSpec("max_fpr", "Reject at most this share of good parts.", no_limit=(1,))

    def describe(self) -> str:
        return f"false rejects at most {format_rate(self.rate)}"

    def pick(self, good: Scores, defective: Scores) -> float:
        thresholds = candidates(np.concatenate([good, defective]))
        return float(thresholds[np.argmax(count_reaching(good, thresholds) / len(good) <= self.rate)])


@dataclass(frozen=True)
class MinRecall(_Rate):
    """The highest threshold that rejects at least the share `rate` of the defective images.

    The rate may be reached exactly. Equal defective scores are rejected together.

    >>> MinRecall(1.0).choose(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    2.5
    """

    name = "min_recall"
    option = OptionSpec("min_recall", "Catch at least this share of defective parts.")
    needs_defects = True
    bounded_by = "defective"

    def describe(self) -> str:
        return f"defects caught at least {format_rate(self.rate)}"

    def pick(self, good: Scores, defective: Scores) -> float:
        thresholds = candidates(np.concatenate([good, defective]))
        return float(
            thresholds[np.flatnonzero(count_reaching(defective, thresholds) / len(defective) >= self.rate)[-1]]
        )

    def support(self, confusion: Confusion) -> str | None:
        return find_unsupported_demand(
            self.rate, "catch", "caught", confusion.true_ng, confusion.defective, confusion.noun
        )

    def target(self, confusion: Confusion, *, banded: bool) -> Target | None:
        if confusion.recall is None:
            return None
        asked = f"at least {format_rate(self.rate)} of defective parts rejected"
        return Target.at_least(asked, self.rate, confusion.true_ng, confusion.defective)


@dataclass(frozen=True)
class Quantile(_FalseRejectLimit):
    """The lowest threshold that passes at least the share `rate` of the good images (`conformal.quantile`).

    >>> Quantile(0.75).choose(np.array([1.0, 2.0, 3.0, 4.0]), np.array([]))
    3.5
    """

    name = "quantile"
    option = OptionSpec("quantile", "Pass this share of good parts; needs no defects.")
    _lead = "{rate} of good images passing means"

    @property
    def passing(self) -> float:
        return self.rate

    @property
    def limit(self) -> float:
        return 1.0 - self.rate

    def describe(self) -> str:
        return f"{format_rate(self.rate)} of good images pass"

    def pick(self, good: Scores, defective: Scores) -> float:
        return quantile(good, self.rate)


@dataclass(frozen=True)
class Conformal(_FalseRejectLimit):
    """The split-conformal threshold: it rejects a new good part with a probability of at most `rate`.

    >>> Conformal(0.25).choose(np.array([1.0, 2.0, 3.0, 4.0]), np.array([]))
    4.000000000000001
    """

    name = "conformal"
    option = OptionSpec(
        "conformal",
        "Guarantee at most this rate of false rejects of new good parts; needs no defects.",
        no_limit=(0, 1),
    )

    def describe(self) -> str:
        return f"false rejects of new good parts at most {format_rate(self.rate)} (split conformal)"

    def check(self, good: int, defective: int) -> None:
        super().check(good, defective)
        check_conformal(good, self.rate)

    def pick(self, good: Scores, defective: Scores) -> float:
        return conformal(good, self.rate)

    def support(self, confusion: Confusion) -> str | None:
        return None  # the guarantee is for the mean over sets of images, and `check` has tested it


@dataclass(frozen=True)
class Manual(Policy):
    """A threshold set by hand."""

    name = "manual"
    option = None

    value: float
    """Threshold of the score, finite."""

    def describe(self) -> str:
        return f"set by hand to {self.value:g}"

    def choose(self, good: Scores, defective: Scores) -> float:
        self.check(len(good), len(defective))
        return self.value

    def pick(self, good: Scores, defective: Scores) -> float:
        return self.value


POLICIES: tuple[type[Policy], ...] = (MaxF1, Youden, Cost, MaxFpr, MinRecall, Quantile, Conformal, Manual)
"""All policies, in the order of the help."""

Policy.kinds = POLICIES


def default_policy(defective: int) -> Policy:
    """Return the policy that is used if none is requested.

    Parameters
    ----------
    defective
        Number of defective images or parts.

    Returns
    -------
    Policy
        The highest F1; without defective images, the policy that passes 99% of the good images.
    """
    return MaxF1() if defective else Quantile(0.99)
