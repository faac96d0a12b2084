"""Write a threshold into a model file: choose it from scores, measure it, and record its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.blindness import find_blindness
from onspect.calibration.fitness import Fitness, find_targets, judge_fitness
from onspect.calibration.metrics.image import Confusion, Noun, count_confusion, measure_rates
from onspect.calibration.regions import RegionCuts, describe_regions
from onspect.calibration.review import Band
from onspect.calibration.rules import NamedRule
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.thresholds import Manual, Policy
from onspect.runtime.conformal import CROSS_CONFORMAL
from onspect.runtime.dataset.groups import describe_parts
from onspect.runtime.errors import DatasetError
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, restamp
from onspect.runtime.model.schema import Calibration, HeldBack, ModelInfo, Threshold
from onspect.runtime.outliers import find_lone_scores, name_some


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

    data: str
    """Name of the dataset."""
    counts: dict[str, int]
    """Number of parts by kind; without groups each image is a part."""
    pictures: int
    """Number of images that show the parts; 0 if an older release did not record it."""
    images: str
    """Fingerprint of the set of images."""
    good: NDArray[np.float64]
    """Scores of the good parts, float64 [n]."""
    defective: NDArray[np.float64]
    """Scores of the defective parts, float64 [m]."""
    trained_on: int
    """Number of images that the model was trained on."""
    fingerprints: str
    """Packed fingerprints of the images' files."""
    looks: str
    """Packed hashes of the images' features, for the search for similar images."""
    marks: tuple[tuple[float, ...], ...]
    """Scores of good images with test marks, one tuple for each image."""
    auroc: float | None
    """AUROC, 0 to 1; None if good or defective images are missing."""
    aupr: float | None
    """AUPR, 0 to 1; None if good or defective images are missing."""
    areas: Mapping[str, Sequence[float | None]]
    """95% intervals of AUROC and AUPR by name."""
    held_back: HeldBack | None
    """Test images that are held back, or None."""
    names: tuple[str, ...] = ()
    """Paths of the good images, in the order of their scores; empty if unknown."""
    trimmed: int = 0
    """Number of good images that were left out because their scores are outliers."""

    @property
    def noun(self) -> Noun:
        """Unit of the scores."""
        return "part" if sum(self.counts.values()) < self.pictures else "image"


@dataclass(frozen=True)
class CalibrationRequest:
    """Requirements for a threshold."""

    policy: Policy
    """Rule for the threshold."""
    band: Band | None
    """Rule for the review band; None for no band."""
    strict: bool
    """Whether requirements that the images do not support are an error."""


def _choose_cuts(evidence: Evidence, demand: CalibrationRequest) -> tuple[float, float | None, Interval | None]:
    """Return the threshold, the lower end of the review band, and the 95% interval of the threshold."""
    good, defective = evidence.good, evidence.defective
    score = demand.policy.choose(good, defective)
    interval = demand.policy.interval(good, defective)
    if demand.band is None:
        return score, None, interval
    return score, demand.band.choose(good, defective, score, interval), interval


def _describe_evidence(
    evidence: Evidence,
    demand: CalibrationRequest,
    threshold: Threshold,
    confusion: Confusion,
    interval: Interval | None,
    regions: RegionCuts,
) -> Calibration:
    """Return the evidence of a threshold as the file records it."""
    good, defective, trained_on = evidence.good, evidence.defective, evidence.trained_on
    return Calibration(
        policy=_describe_demand(demand, threshold, evidence),
        data=evidence.data,
        counts=evidence.counts,
        auroc=evidence.auroc,
        aupr=evidence.aupr,
        true_ng=confusion.true_ng,
        false_ng=confusion.false_ng,
        true_ok=confusion.true_ok,
        false_ok=confusion.false_ok,
        images=evidence.images,
        time=now(),
        intervals={
            **measure_rates(confusion, banded=threshold.review is not None),
            **{name: tuple(ends) for name, ends in evidence.areas.items()},
            **({"threshold": tuple(end if math.isfinite(end) else None for end in interval)} if interval else {}),
        },
        training_images=trained_on,
        good_scores=tuple(np.sort(good).tolist()),
        defective_scores=tuple(np.sort(defective).tolist()),
        rule=demand.policy.rule,
        review_good=confusion.review_good,
        review_defective=confusion.review_defective,
        mark_scores=evidence.marks,
        review_rule=None if demand.band is None else demand.band.rule,
        map_rule=regions.map_rule,
        area_rule=regions.area_rule,
        fingerprints=evidence.fingerprints,
        looks=evidence.looks,
        held_back=evidence.held_back,
    )


def _note_doubts(evidence: Evidence) -> list[str]:
    """Return the reasons why the threshold is less certain than its table shows."""
    notes = []
    if evidence.trained_on:
        notes.append(
            f"{evidence.trained_on} of the images were trained on: expect more false rejects than this table shows"
        )
    return notes


def _describe_demand(demand: CalibrationRequest, threshold: Threshold, evidence: Evidence) -> str:
    trained_on, trimmed = evidence.trained_on, evidence.trimmed
    words = demand.policy.describe()
    if demand.band is not None and threshold.review is not None:
        words += f"; {demand.band.describe()}"
    if evidence.noun == "part":
        words += f" ({describe_parts(sum(evidence.counts.values()), evidence.pictures)})"
    words += f" ({trained_on} training image{'s' * (trained_on != 1)} among them)" if trained_on else ""
    return words + (f" ({trimmed} good image{'s' * (trimmed != 1)} left out by --trim)" if trimmed else "")


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


def _note_band(old: Threshold | None, threshold: Threshold, demand: CalibrationRequest) -> list[str]:
    """Return a note if a review band that was requested, or existed before, is missing."""
    if threshold.review is not None:
        return []
    if demand.band is not None:
        return [f"there is no review band: '{demand.band.describe()}' leaves nothing below the threshold"]
    if old is None or old.review is None:
        return []
    options = "--review, --review-recall or --review-share makes a new one"
    return [f"the file's review band, from {old.review:.6g} on, was removed, and its parts pass now; {options}"]


def stamp_threshold(
    file: ModelFile,
    evidence: Evidence,
    demand: CalibrationRequest,
    choose_regions: Callable[[float], RegionCuts],
    source: str,
) -> CalibrationResult:
    """Choose a threshold, measure it and write it with its evidence into the file.

    On an error the file does not change.

    Parameters
    ----------
    file
        The model file.
    evidence
        Scores and facts about their images.
    demand
        Requirements for the threshold.
    choose_regions
        Returns the thresholds for regions from the lower threshold of the score.
    source
        Origin of the images as text.

    Returns
    -------
    CalibrationResult
        The threshold, its evidence and warnings.

    Raises
    ------
    DatasetError
        If the images are not enough for a rule, or with `strict` do not support the requirements.
    """
    score, review, interval = _choose_cuts(evidence, demand)
    regions = choose_regions(score if review is None else review)
    threshold = Threshold(score, regions.map, review, regions.area)
    confusion = count_confusion(evidence.good, evidence.defective, threshold, evidence.noun)
    rules: list[NamedRule] = [demand.policy] if demand.band is None else [demand.policy, demand.band]
    unsupported = [*filter(None, (rule.support(confusion) for rule in rules)), *regions.unsupported]
    lone = _note_lone(evidence, demand.policy, score)
    calibration = _describe_evidence(evidence, demand, threshold, confusion, interval, regions)
    blindness = find_blindness(evidence.auroc, calibration.intervals, confusion)
    if demand.strict and (unsupported or lone or blindness):
        raise DatasetError(f"{'; '.join([*blindness, *unsupported, *lone])}; nothing was stamped")
    restamp(file, threshold, calibration)
    notes = [*lone, *unsupported, *_note_doubts(evidence), *regions.notes]
    notes += _note_band(file.info.threshold, threshold, demand)
    notes += _note_promise(file.info, threshold)
    words = "; ".join(filter(None, [describe_regions(regions.map_rule, regions.area_rule), regions.shown]))
    return CalibrationResult(
        threshold, calibration, confusion, source, 0, demand.band, words, tuple(notes), tuple(blindness)
    )


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
