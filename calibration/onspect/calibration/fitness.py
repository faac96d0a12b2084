"""Fitness for use: compare a model's rates with the required rates and give the result in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from onspect.calibration.metrics.image import Confusion
from onspect.calibration.review import Band
from onspect.calibration.statistics.intervals import upper_bound
from onspect.calibration.statistics.support import Outcome, Side, Target
from onspect.calibration.thresholds import Policy
from onspect.runtime.conformal import format_rate
from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.model.schema import Calibration

MISTAKES: dict[Side, str] = {"false rejects": "a false reject", "escapes": "an escape", "reviews": "a review"}
"""One mistake of each side, for sentences."""

NOT_SHOWN = "it is not shown"
"""Beginning of a sentence that says that the images are too few to show whether the model is useful."""

_MOST_REJECTED = 0.5
_SEEMS_USEFUL = 0.75
_FEWEST = 3  # with fewer good or defective images, the number of mistakes proves nothing


@dataclass(frozen=True)
class Requirement:
    """Rates that a model must keep on a line; ChoiceError if a rate is not 0 to 1."""

    max_fpr: float | None = None
    """Highest share of good parts that may be rejected, 0 to 1; None for the limit of the calibration."""
    min_recall: float | None = None
    """Lowest share of defective parts that must be rejected or seen by a person, 0 to 1; None for that of the
    calibration.
    """

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            if rate is not None and not 0.0 <= rate <= 1.0:
                raise ChoiceError(f"{name} is {rate}; a rate is a share of 1, such as 0.005 for 0.5%")


@dataclass(frozen=True)
class Fitness:
    """Whether a model is fit for use."""

    outcome: Outcome
    """``PASS`` only if both false rejects and escapes keep a limit with 95% confidence."""

    words: str
    """The result in one sentence."""


_WORST_FIRST: tuple[Outcome, ...] = ("FAIL", "NOT PROVEN", "PASS")

_SIDES: tuple[tuple[Side, str, str], ...] = (
    ("false rejects", "good", "--max-fpr"),
    ("escapes", "defective", "--min-recall"),
)


def find_blindness(
    auroc: float | None, intervals: Mapping[str, Sequence[float | None]], confusion: Confusion
) -> list[str]:
    """Return the reasons why a model is not useful on these images.

    Parameters
    ----------
    auroc
        AUROC of the images, 0 to 1; None if good or defective images are missing.
    intervals
        95% intervals by metric. Only ``auroc`` is read.
    confusion
        Counts at the file's threshold.

    Returns
    -------
    list[str]
        One sentence for each reason; empty if there is no reason.
    """
    found = []
    noun = confusion.noun
    low = intervals["auroc"][0] if "auroc" in intervals else None
    if auroc is not None and low is not None and low <= 0.5:
        high = intervals["auroc"][1] or 1.0
        span = f"the AUROC is {auroc:.2f}, its 95% interval, {low:.2f} to {high:.2f}"
        figures = f"{span}, includes 0.5, which is chance"
        if high < 0.5:
            found.append(f"the model scores good {noun}s higher than defective ones: {span}; are the labels swapped?")
        elif auroc < _SEEMS_USEFUL:
            found.append(f"the model does not tell good from defective {noun}s: {figures}")
        else:
            found.append(f"{NOT_SHOWN} that the model tells good from defective {noun}s: {figures}; they are too few")
    if confusion.good >= _FEWEST and confusion.false_ng > _MOST_REJECTED * confusion.good:
        found.append(f"the threshold rejects {confusion.false_ng} of {confusion.good} good {noun}s")
    if confusion.defective >= _FEWEST and not confusion.true_ng + confusion.review_defective:
        found.append(f"the threshold catches none of {confusion.defective} defective {noun}s")
    return found


def find_targets(
    calibration: Calibration | None, confusion: Confusion, *, banded: bool, requirement: Requirement | None = None
) -> list[Target]:
    """Return each required rate with the rate of these images.

    A rate of the requirement replaces the one that the file was calibrated for.

    Parameters
    ----------
    calibration
        Calibration of the file, or None.
    confusion
        Number of images or parts by label and verdict.
    banded
        Whether the threshold has a review band.
    requirement
        Rates that are required in addition; None for those of the calibration only.

    Returns
    -------
    list[Target]
        The required rates for which there are images.
    """
    required = requirement or Requirement()
    targets: list[Target] = []
    if required.max_fpr is not None and confusion.good:
        asked = f"at most {format_rate(required.max_fpr)} of good parts rejected"
        targets.append(Target.at_most(asked, required.max_fpr, confusion.false_ng, confusion.good))
    if required.min_recall is not None and confusion.defective:
        seen = confusion.defective - confusion.false_ok
        words = "rejected or seen by a person" if banded else "rejected"
        asked = f"at least {format_rate(required.min_recall)} of defective parts {words}"
        targets.append(Target.at_least(asked, required.min_recall, seen, confusion.defective))
    given = {target.side for target in targets}
    rules: list[Policy | Band] = []
    if calibration is not None:
        with suppress(ModelFileError):  # a newer release may know more rules
            rules += [] if calibration.rule is None else [Policy.from_rule(calibration.rule)]
            rules += [] if calibration.review_rule is None else [Band.from_rule(calibration.review_rule)]
    of_file = [rule.target(confusion, banded=banded) for rule in rules]
    targets += [target for target in of_file if target is not None and target.side not in given]
    return targets


def judge_fitness(
    targets: Sequence[Target], confusion: Confusion, blindness: Sequence[str], doubts: Sequence[str] = ()
) -> Fitness:
    """Return whether a model is fit for use, and the reason or the missing proof.

    Parameters
    ----------
    targets
        Required rates, from `find_targets`.
    confusion
        Number of images or parts by label and verdict.
    blindness
        Reasons why the model is not useful on these images, from `find_blindness`.
    doubts
        Reasons why these images are not a proof, in a few words each.

    Returns
    -------
    Fitness
        The outcome and one sentence.
    """
    sides = [_describe_side(side, images, option, targets, confusion) for side, images, option in _SIDES]
    noun = _name(confusion)
    sides += [_describe_target(target, "reviews", noun) for target in targets if target.side == "reviews"]
    useless = [sentence for sentence in blindness if not sentence.startswith(NOT_SHOWN)]
    outcomes = {target.outcome for target in targets}
    asked = {target.side for target in targets}
    outcome: Outcome = "NOT PROVEN"
    if useless or "FAIL" in outcomes:
        outcome, head = "FAIL", "not fit for use"
    elif doubts:
        head = f"not proven: {'; '.join(doubts)}"
    elif not asked.issuperset(side for side, _, _ in _SIDES) and outcomes <= {"PASS"}:
        head = "not decided"
    elif outcomes == {"PASS"} and not blindness:
        outcome, head = "PASS", "fit for use at the requirement"
    else:
        head = f"not proven with so few {noun}"
    return Fitness(outcome, ": ".join([head, "; ".join([*useless, *sides])]))


def _describe_side(side: Side, images: str, option: str, targets: Sequence[Target], confusion: Confusion) -> str:
    total = confusion.good if side == "false rejects" else confusion.defective
    wrong = confusion.false_ng if side == "false rejects" else confusion.false_ok
    if not total:
        return f"{side} are not known, there are no {images} {_name(confusion)}"
    found = [target for target in targets if target.side == side]
    if not found:
        bound = f", so at most {format_bound(upper_bound(wrong, total))}" if wrong < total else ""
        return f"{side} {wrong} of {total}{bound}, and no limit was asked for ({option} sets one)"
    worst = min(found, key=lambda target: _WORST_FIRST.index(target.outcome))
    return _describe_target(worst, side if worst.wrong == wrong else "defects not rejected", _name(confusion))


def _name(confusion: Confusion) -> str:
    return "parts" if confusion.noun == "part" else "pictures"


def _describe_target(target: Target, name: str, noun: str) -> str:
    images = "defective" if target.side == "escapes" else "good"
    count = f"{name} {target.wrong} of {target.total}"
    if target.outcome == "PASS":
        return f"{count} prove {target.asked}"
    if target.outcome == "FAIL":
        return f"{count} disprove {target.asked}"
    if target.more is None:
        return f"{count}, and no number of {noun} would prove {target.asked}"
    return f"{count}; {target.more} more {images} {noun} without {MISTAKES[target.side]} would prove {target.asked}"


def format_bound(rate: float) -> str:
    """Return the upper bound of a rate in percent, rounded up to two digits.

    Parameters
    ----------
    rate
        Upper bound, a share of 1.

    Returns
    -------
    str
        Such as ``4.9%``.

    Examples
    --------
    >>> format_bound(0.0487), format_bound(0.00431)
    ('4.9%', '0.44%')
    """
    if rate <= 0.0:
        return "0%"
    digits = max(0, 1 - math.floor(math.log10(rate * 100.0)))
    return format_rate(math.ceil(round(rate * 100.0 * 10**digits, 6)) / 10**digits / 100.0)
