"""Write a threshold into a model file: choose it from scores, measure it, and record its evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.fitness import Fitness, find_blindness, find_targets, judge_fitness
from onspect.calibration.metrics.image import Confusion, Noun, count_confusion, measure_rates
from onspect.calibration.regions import RegionCuts, describe_regions
from onspect.calibration.review import Band
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.thresholds import Manual, Policy
from onspect.runtime.conformal import CROSS_CONFORMAL
from onspect.runtime.dataset.groups import describe_parts
from onspect.runtime.errors import DatasetError
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, restamp
from onspect.runtime.model.schema import Calibration, ModelInfo, Threshold
from onspect.runtime.outliers import find_lone_scores, name_some
from onspect.runtime.text import count_of

Rules = tuple[Policy, Band | None]
"""Rule for the threshold, and rule for the review band or None."""


@dataclass(frozen=True)
class CalibrationResult:
    """A threshold that was written into a model file, with its evidence."""

    threshold: Threshold
    """The threshold."""
    calibration: Calibration
    """The evidence, as the file has it."""
    confusion: Confusion
    """Verdicts at the threshold on the images that it was chosen on."""
    source: str
    """Origin of the images as text."""
    left_out: int
    """Number of images that were left out because the model was trained on them."""
    band: Band | None
    """Rule of the review band that was requested, or None."""
    regions: str
    """Rules for regions as text; empty if regions follow the score's own threshold."""
    notes: tuple[str, ...]
    """Reasons why the threshold is less certain, one sentence each."""
    blindness: tuple[str, ...] = ()
    """Reasons why the model is not useful on these images, one sentence each; usually empty."""

    @property
    def fitness(self) -> Fitness:
        """Whether the model is fit for use, according to the images that the threshold was chosen on."""
        banded = self.threshold.review is not None
        trained_on = self.calibration.training_images
        doubts = [f"{trained_on} of the pictures were trained on"] if trained_on else []
        targets = find_targets(self.calibration, self.confusion, banded=banded)
        return judge_fitness(targets, self.confusion, self.blindness, doubts)

    def __str__(self) -> str:
        from onspect.calibration.report.tables import describe_outcome  # imports this module

        return describe_outcome(self)


@dataclass(frozen=True)
class Evidence:
    """Scores that a threshold is chosen from, and facts about their images."""

    record: Calibration
    """The record of the images for the file. What depends on the threshold is added to it."""
    good: NDArray[np.float64]
    """Scores of the good parts, float64 [n]."""
    defective: NDArray[np.float64]
    """Scores of the defective parts, float64 [m]."""
    pictures: int
    """Number of images that show the parts; 0 if an older release did not record it."""
    names: tuple[str, ...] = ()
    """Paths of the good images, in the order of their scores; empty if unknown."""
    trimmed: int = 0
    """Number of good images that were left out because their scores are outliers."""

    @property
    def noun(self) -> Noun:
        """Unit of the scores."""
        return "part" if sum(self.record.counts.values()) < self.pictures else "image"


def _complete_record(
    evidence: Evidence,
    rules: Rules,
    threshold: Threshold,
    confusion: Confusion,
    interval: Interval | None,
    regions: RegionCuts,
) -> Calibration:
    """Return the evidence of a threshold as the file records it."""
    policy, band = rules
    intervals = {**measure_rates(confusion, banded=threshold.review is not None), **evidence.record.intervals}
    if interval is not None:
        intervals["threshold"] = tuple(end if math.isfinite(end) else None for end in interval)
    return dataclasses.replace(
        evidence.record,
        policy=_describe_rules(rules, threshold, evidence),
        time=now(),
        intervals=intervals,
        good_scores=tuple(np.sort(evidence.good).tolist()),
        defective_scores=tuple(np.sort(evidence.defective).tolist()),
        rule=policy.rule,
        review_rule=None if band is None else band.rule,
        map_rule=regions.map_rule,
        area_rule=regions.area_rule,
        **confusion.counts,
    )


def _describe_rules(rules: Rules, threshold: Threshold, evidence: Evidence) -> str:
    policy, band = rules
    trained_on, trimmed = evidence.record.training_images, evidence.trimmed
    words = policy.describe()
    if band is not None and threshold.review is not None:
        words += f"; {band.describe()}"
    if evidence.noun == "part":
        words += f" ({describe_parts(sum(evidence.record.counts.values()), evidence.pictures)})"
    words += f" ({count_of(trained_on, 'training image')} among them)" if trained_on else ""
    return words + (f" ({count_of(trimmed, 'good image')} left out by --trim)" if trimmed else "")


def _note_promise(info: ModelInfo, threshold: Threshold) -> list[str]:
    """Return a note if the threshold rises above the one that teaching gave a guarantee for."""
    if info.threshold is None or info.calibration is None or CROSS_CONFORMAL not in info.calibration.policy:
        return []
    if threshold.score <= info.threshold.score:
        return []
    sentence = (
        f"the threshold rises from {info.threshold.score:.4g}, which teaching chose, to {threshold.score:.4g}: defects "
        "that score between the two pass now; 'onspect threshold --undo' restores the old one"
    )
    return [sentence]


def _note_band(old: Threshold | None, threshold: Threshold, band: Band | None) -> list[str]:
    """Return a note if a review band that was requested, or existed before, is missing."""
    if threshold.review is not None:
        return []
    if band is not None:
        return [f"there is no review band: '{band.describe()}' leaves nothing below the threshold"]
    if old is None or old.review is None:
        return []
    options = "--review, --review-recall or --review-share makes a new one"
    return [f"the file's review band, from {old.review:.6g} on, was removed, and its parts pass now; {options}"]


def stamp_threshold(
    file: ModelFile,
    evidence: Evidence,
    rules: Rules,
    choose_regions: Callable[[float], RegionCuts],
    source: str,
    *,
    strict: bool,
) -> CalibrationResult:
    """Choose a threshold, measure it and write it with its evidence into the file.

    On an error the file does not change.

    Parameters
    ----------
    file
        The model file.
    evidence
        Scores and facts about their images.
    rules
        Rule for the threshold, and rule for the review band or None.
    choose_regions
        Returns the thresholds for regions from the lower threshold of the score.
    source
        Origin of the images as text.
    strict
        Whether requirements that the images do not support are an error.

    Returns
    -------
    CalibrationResult
        The threshold, its evidence and warnings.

    Raises
    ------
    DatasetError
        If the images are not enough for a rule, or with `strict` do not support the requirements.
    """
    policy, band = rules
    good, defective = evidence.good, evidence.defective
    score, interval = policy.choose(good, defective), policy.interval(good, defective)
    review = None if band is None else band.choose(good, defective, score, interval)
    regions = choose_regions(score if review is None else review)
    threshold = Threshold(score, regions.map, review, regions.area)
    confusion = count_confusion(good, defective, threshold, evidence.noun)
    unsupported = [*filter(None, (rule.support(confusion) for rule in rules if rule)), *regions.unsupported]
    lone = _note_lone(evidence, policy, score)
    calibration = _complete_record(evidence, rules, threshold, confusion, interval, regions)
    blindness = find_blindness(calibration.auroc, calibration.intervals, confusion)
    if strict and (unsupported or lone or blindness):
        raise DatasetError(f"{'; '.join([*blindness, *unsupported, *lone])}; nothing was stamped")
    restamp(file, threshold, calibration)
    notes = [*lone, *unsupported]
    if trained_on := calibration.training_images:
        notes.append(f"{trained_on} of the images were trained on: expect more false rejects than this table shows")
    notes += [*regions.notes, *_note_band(file.info.threshold, threshold, band), *_note_promise(file.info, threshold)]
    words = "; ".join(filter(None, [describe_regions(regions.map_rule, regions.area_rule), regions.shown]))
    return CalibrationResult(threshold, calibration, confusion, source, 0, band, words, tuple(notes), tuple(blindness))


def _note_lone(evidence: Evidence, policy: Policy, threshold: float) -> list[str]:
    """Return a note with the good images whose score is an outlier, and the threshold without them."""
    lone = [] if isinstance(policy, Manual) else find_lone_scores(evidence.good)
    if not lone:
        return []
    rest = np.delete(evidence.good, lone)
    try:
        without = f"the threshold is {threshold:.6g} with and {policy.choose(rest, evidence.defective):.6g} "
    except DatasetError:
        without = "the others are too few for a threshold "
    scores = ", ".join(f"{evidence.good[place]:.6g}" for place in lone[:3])
    names = f": {name_some([evidence.names[place] for place in lone])}" if evidence.names else ""
    images = f"{len(lone)} of {len(evidence.good)} good images " + (
        "are outliers" if len(lone) > 1 else "is an outlier"
    )
    cure = "without; check the picture, and move it if it is not good, or leave it out with --trim"
    return [f"{images} with a score of {scores}, the next is {rest.max():.6g}{names}; {without}{cure}"]
