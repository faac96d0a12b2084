"""Calibration: score labelled images, choose a threshold by a policy, and stamp it with its evidence into the file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.blindness import find_blindness
from onspect.calibration.fitness import Fitness, find_targets, judge_fitness
from onspect.calibration.metrics.image import (
    Confusion,
    count_confusion,
    measure_area_intervals,
    measure_areas,
    measure_rates,
)
from onspect.calibration.overlap import compare_with_training, describe_twins
from onspect.calibration.regions import (
    PixelScores,
    RegionCuts,
    RegionDemand,
    check_regions,
    choose_area,
    choose_map,
    describe_regions,
    move_map,
)
from onspect.calibration.repeats import describe_repeats, drop_repeats
from onspect.calibration.review import BANDS, Band
from onspect.calibration.rules import NamedRule, list_options
from onspect.calibration.scores import (
    Fault,
    Observation,
    ScoredImage,
    count_kinds,
    find_images,
    fingerprint_images,
    name_source,
    part_scores,
    score_images,
)
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.test_split import describe_overlap, describe_test_split, find_test_split
from onspect.calibration.thresholds import Manual, Policy, default_policy
from onspect.runtime.conformal import CROSS_CONFORMAL
from onspect.runtime.dataset.folder import GOOD, LabelledImage
from onspect.runtime.dataset.near_duplicates import hash_look
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError, UncalibratedError
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.batch import in_order
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, read_model_file, restamp
from onspect.runtime.model.schema import Calibration, HeldBack, ModelInfo, Threshold
from onspect.runtime.outliers import find_lone_scores, name_some
from onspect.runtime.progress import Progress, no_progress
from onspect.runtime.recalibration.probe_defects import MAX_MARKED, score_probe_defects

TrainingImages = Literal["refuse", "skip", "allow"]
"""What to do with images that the model was trained on."""


@dataclass(frozen=True)
class CalibrationResult:
    """What was stamped.

    source: where the images came from, in words. left_out: images not used because the model was trained on them.
    band: the review band that was asked for. regions: how regions are marked, in words, empty where by the score's own
    cut. notes: what makes the threshold less sure, one sentence each. blindness: why the model is of no use here, one
    sentence each, mostly none.
    """

    threshold: Threshold
    calibration: Calibration
    confusion: Confusion
    source: str
    left_out: int
    band: Band | None
    regions: str
    notes: tuple[str, ...]
    blindness: tuple[str, ...] = ()

    @property
    def fitness(self) -> Fitness:
        """Whether the model is fit for use, by the pictures that the threshold was chosen on."""
        banded = self.threshold.review is not None
        trained_on = self.calibration.training_images
        doubts = [f"{trained_on} of the pictures were trained on"] if trained_on else []
        targets = find_targets(self.calibration, self.confusion, banded=banded)
        return judge_fitness(targets, self.confusion, self.blindness, doubts)

    def __str__(self) -> str:
        from onspect.calibration.report.tables import describe_outcome  # it imports this module

        return describe_outcome(self)


def calibrate(
    model: str | Path,
    data: str | Path,
    policy: Policy | None = None,
    *,
    band: Band | None = None,
    regions: RegionDemand | None = None,
    split: str = "val",
    training: TrainingImages = "refuse",
    strict: bool = False,
    trim: bool = False,
    progress: Progress = no_progress,
    **options: Any,
) -> CalibrationResult:
    """Set a model file's threshold from labelled images, and write it with its evidence into the file.

    Equal files count once. The graph does not change. On an error the file does not change.

    Parameters
    ----------
    model
        The model file.
    data
        A dataset folder: ``val/good/`` and ``val/DEFECT/``, or ``good/`` and ``DEFECT/``, or only good images.
    policy
        How the threshold is chosen; None for the policy that the options name, such as ``max_fpr=0.005``. Without
        either, the highest F1 if there are defective images, otherwise the threshold that 99% of the good images pass.
    band
        How the review band below the threshold is chosen; None for the band that the options name, or no band.
    regions
        Requirements for regions; None for those that the options name. Without any, and if the score is the error map's
        maximum, the map's threshold is the lower threshold of the score. A part then has a region exactly if it is not
        ``ok``.
    split
        ``val`` or ``test``: the folder of the dataset.
    training
        Handling of images that the model was trained on: ``refuse``, ``skip`` or ``allow``.
    strict
        Raise DatasetError if the images are too few for the requirement, if a good image's score is an outlier, or if
        the model does not separate good from defective images.
    trim
        Leave out good images whose score is an outlier.
    progress
        Wraps long work, for a progress bar.
    options
        The options of ``onspect calibrate`` with underscores, rates as shares of 1: ``max_fpr=0.005``, ``cost=(1, 50),
        prevalence=0.02``, ``review_share=0.05``, ``pixel_fpr=0.001``.

    Returns
    -------
    CalibrationResult
        The threshold, its evidence and warnings.

    Raises
    ------
    ChoiceError
        If options are unknown or exclude each other.
    ModelFileError
        If the file cannot be used, or its scores are not numbers.
    DatasetError
        If images are missing, cannot be read, were trained on, or are not enough for the policy.
    """
    model, data = Path(model), Path(data)
    policy, band, regions = _read_options(options, policy, band, regions)
    file = read_model_file(model)
    inspector = Inspector(file)
    found = find_images(data, split)
    selected, trained_on = select_images(found, file, training, progress)
    images, repeats = drop_repeats(selected)
    defects = sum(image.defective for image in images)
    policy = policy or default_policy(defects)
    policy.check(len(images) - defects, defects)
    if band is not None:
        band.check(len(images) - defects, defects)
    check_regions(regions, images)
    pixels = PixelScores(regions, file.info.score.inspected)
    results = _collect(progress(score_images(inspector, images), len(images), "scoring"), len(images), pixels)
    trimmed: list[ScoredImage] = []
    if trim:
        trimmed = find_lone_images(results)
        left_out = {id(result.image) for result in trimmed}
        images = [image for image in images if id(image) not in left_out]
        if trimmed:
            pixels = PixelScores(regions, file.info.score.inspected)
            anew = progress(score_images(inspector, images), len(images), "scoring without them")
            results = _collect(anew, len(images), pixels)
    good, defective = part_scores(results)
    areas = measure_areas(good, defective)
    test, unknown = find_test_split(inspector, data, split, progress)
    evidence = _Evidence(
        data=data.resolve().name,
        counts=count_kinds(images),
        images=fingerprint_set(result.fingerprint for result in results),
        good=good,
        defective=defective,
        trained_on=trained_on,
        marks=_score_marks(inspector, images, progress),
        fingerprints=pack_fingerprints(result.fingerprint for result in results),
        looks=pack_fingerprints(hash_look(result.look, file.looks) for result in results),
        auroc=areas.auroc,
        aupr=areas.aupr,
        areas=measure_area_intervals(good, defective),
        held_back=describe_test_split(test),
        names=tuple(str(result.image.path) for result in results if not result.image.defective),
        trimmed=len(trimmed),
    )
    demand = _CalibrationRequest(policy, band, strict)

    def score_again() -> Iterator[Observation]:
        again = progress(score_images(inspector, images), len(images), "measuring regions")
        return (observation for observation in again if isinstance(observation, Observation))

    def choose_regions(cut: float) -> RegionCuts:
        cuts = choose_map(regions, pixels, cut, is_peak=file.info.score.is_peak)
        return choose_area(cuts, regions.area, score_again)

    outcome = _stamp(file, evidence, demand, choose_regions, name_source(data, split))
    twins = describe_twins(
        compare_with_training(results, file).twins,
        len(results),
        "images that the model was trained on",
        "if they show the same parts, their scores are lower than new parts' will be, and so is the threshold; "
        "keep all pictures of a part in one folder of the dataset",
    )
    left_out_words = [] if not trimmed else [f"left out by --trim: {_name_lone(trimmed)}"]
    notes = (*outcome.notes, *describe_repeats(repeats, len(selected)), *left_out_words, *twins, *unknown)
    notes += tuple(describe_overlap(test, results, file))
    return dataclasses.replace(outcome, left_out=len(found) - len(selected), notes=notes)


def find_lone_images(results: Sequence[ScoredImage]) -> list[ScoredImage]:
    """Return the good images whose score stands alone, highest first."""
    good = [result for result in results if not result.image.defective]
    return [good[place] for place in find_lone_scores([result.score for result in good])]


def _name_lone(lone: Sequence[ScoredImage]) -> str:
    return ", ".join(f"{str(result.image.path)!r} (score {result.score:.6g})" for result in lone[:3]) + (
        f" and {len(lone) - 3} more" if len(lone) > 3 else ""
    )


def _read_options(
    options: Mapping[str, Any], policy: Policy | None, band: Band | None, regions: RegionDemand | None
) -> tuple[Policy | None, Band | None, RegionDemand]:
    """Return the rules that options name, with those that were given as objects; raises ChoiceError if both are."""
    bands, of_regions = list_options(BANDS), RegionDemand.OPTIONS
    named = (
        Policy.from_options({name: options[name] for name in options if name not in {*bands, *of_regions}}),
        Band.from_options({name: options[name] for name in options if name in bands}),
        RegionDemand.from_options(**{name: options[name] for name in options if name in of_regions}),
    )
    for given, by_option in zip((policy, band, regions), named, strict=True):
        if given is not None and by_option not in (None, RegionDemand()):
            raise ChoiceError(f"{given!r} and the options for {by_option!r} exclude each other; give one of them")
    return policy or named[0], band or named[1], regions or named[2]


def move_threshold(
    model: str | Path,
    policy: Policy | None = None,
    *,
    band: Band | None = None,
    strict: bool = False,
    trim: bool = False,
    **options: Any,
) -> CalibrationResult:
    """Set a model file's threshold again from the scores that its calibration recorded; no image is read.

    On an error the file does not change.

    Parameters
    ----------
    model
        The model file; it must have a calibration.
    policy, band, strict
        As in `calibrate`.
    trim
        Leave out good scores that are outliers.
    options
        As in `calibrate`, without the options for regions.

    Returns
    -------
    CalibrationResult
        The threshold, its evidence and warnings.

    Raises
    ------
    ModelFileError
        If the file cannot be used.
    UncalibratedError
        If the file has no scores of a calibration.
    DatasetError
        If the scores are not enough for the policy, or (with `strict`) too few to support it.
    ChoiceError
        If options are unknown, exclude each other or concern regions.
    """
    model = Path(model)
    policy, band, regions = _read_options(options, policy, band, None)
    if regions != RegionDemand():
        raise ChoiceError("regions are chosen on images: give their options to calibrate")
    file = read_model_file(model)
    old = file.info.calibration
    if old is None or file.info.threshold is None or not old.good_scores:
        raise UncalibratedError(
            f"{str(model)!r} has no calibration scores to move its threshold on: run 'onspect calibrate {model} DATA'"
        )
    good = np.array(old.good_scores)
    trimmed = find_lone_scores(good) if trim else []
    evidence = _Evidence(
        data=old.data,
        counts=old.counts | ({GOOD: len(good) - len(trimmed)} if trimmed else {}),
        images=old.images,
        good=np.delete(good, trimmed),
        defective=np.array(old.defective_scores),
        trained_on=old.training_images,
        marks=old.mark_scores,
        fingerprints=old.fingerprints,
        looks=old.looks,
        auroc=old.auroc,
        aupr=old.aupr,
        areas={name: ends for name, ends in old.intervals.items() if name in ("auroc", "aupr")},
        held_back=old.held_back,
        trimmed=len(trimmed),
    )
    policy = policy or default_policy(len(evidence.defective))
    threshold, area = file.info.threshold, file.info.threshold.area

    def choose_regions(cut: float) -> RegionCuts:
        moved = move_map(threshold, old.map_rule, cut, is_peak=file.info.score.is_peak)
        return RegionCuts(moved, area, old.map_rule, old.area_rule)

    source = f"the scores in {model.name} of {old.data}"
    return _stamp(file, evidence, _CalibrationRequest(policy, band, strict), choose_regions, source)


def _stamp(
    file: ModelFile,
    evidence: _Evidence,
    demand: _CalibrationRequest,
    choose_regions: Callable[[float], RegionCuts],
    source: str,
) -> CalibrationResult:
    """Choose a threshold, measure it and write both into the file; choose_regions takes the lower of the cuts."""
    score, review, interval = _choose_cuts(evidence, demand)
    regions = choose_regions(score if review is None else review)
    threshold = Threshold(score, regions.map, review, regions.area)
    confusion = count_confusion(evidence.good, evidence.defective, threshold)
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


def _note_lone(evidence: _Evidence, policy: Policy, threshold: float) -> list[str]:
    """Name the good images whose score stands alone, with the threshold that the others give."""
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


@dataclass(frozen=True)
class _Evidence:
    """What a threshold is chosen on: scores, float64, and what there is to say about their images.

    names: of the good images, in the order of their scores; empty where they are not known. trimmed: how many good
    images were left out because their scores stand alone.
    """

    data: str
    counts: dict[str, int]
    images: str
    good: NDArray[np.float64]
    defective: NDArray[np.float64]
    trained_on: int
    fingerprints: str
    looks: str
    marks: tuple[tuple[float, ...], ...]
    auroc: float | None
    aupr: float | None
    areas: Mapping[str, Sequence[float | None]]
    held_back: HeldBack | None
    names: tuple[str, ...] = ()
    trimmed: int = 0


@dataclass(frozen=True)
class _CalibrationRequest:
    """What is asked of a threshold; strict makes an error of what the images do not support."""

    policy: Policy
    band: Band | None
    strict: bool


def _choose_cuts(evidence: _Evidence, demand: _CalibrationRequest) -> tuple[float, float | None, Interval | None]:
    """Return the cut for ``ng``, where the review band begins below it, and the cut's own interval."""
    good, defective = evidence.good, evidence.defective
    score = demand.policy.choose(good, defective)
    interval = demand.policy.interval(good, defective)
    if demand.band is None:
        return score, None, interval
    return score, demand.band.choose(good, defective, score, interval), interval


def _describe_evidence(
    evidence: _Evidence,
    demand: _CalibrationRequest,
    threshold: Threshold,
    confusion: Confusion,
    interval: Interval | None,
    regions: RegionCuts,
) -> Calibration:
    """Return what stands in the file beside a threshold."""
    good, defective, trained_on = evidence.good, evidence.defective, evidence.trained_on
    return Calibration(
        policy=_describe_demand(demand, threshold, trained_on, evidence.trimmed),
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


def _note_doubts(evidence: _Evidence) -> list[str]:
    """Say what makes the threshold less sure than its table."""
    notes = []
    if evidence.trained_on:
        notes.append(
            f"{evidence.trained_on} of the images were trained on: expect more false rejects than this table shows"
        )
    return notes


def _describe_demand(demand: _CalibrationRequest, threshold: Threshold, trained_on: int, trimmed: int) -> str:
    words = demand.policy.describe()
    if demand.band is not None and threshold.review is not None:
        words += f"; {demand.band.describe()}"
    words += f" ({trained_on} training image{'s' * (trained_on != 1)} among them)" if trained_on else ""
    return words + (f" ({trimmed} good image{'s' * (trimmed != 1)} left out by --trim)" if trimmed else "")


def _note_promise(info: ModelInfo, threshold: Threshold) -> list[str]:
    """Say if a threshold that teaching promised something for is raised: defects below the new one pass."""
    if info.threshold is None or info.calibration is None or CROSS_CONFORMAL not in info.calibration.policy:
        return []
    if threshold.score <= info.threshold.score:
        return []
    sentence = (
        f"the threshold rises from {info.threshold.score:.4g}, which teaching chose, to {threshold.score:.4g}: defects "
        "that score between the two pass now; --undo of 'onspect threshold' goes back"
    )
    return [sentence]


def _note_band(old: Threshold | None, threshold: Threshold, demand: _CalibrationRequest) -> list[str]:
    """Say where a review band that was asked for, or was there, is not."""
    if threshold.review is not None:
        return []
    if demand.band is not None:
        return [f"there is no review band: '{demand.band.describe()}' leaves nothing below the threshold"]
    if old is None or old.review is None:
        return []
    options = "--review, --review-recall or --review-share makes a new one"
    return [f"the file's review band, from {old.review:.6g} on, is gone, and its parts pass now; {options}"]


def select_images(
    images: Sequence[LabelledImage], file: ModelFile, training: TrainingImages, progress: Progress = no_progress
) -> tuple[list[LabelledImage], int]:
    """Return the images to calibrate on, and how many of them the model was trained on (0 unless allowed).

    A file that was trained on more images than it records has their smallest fingerprints; where training images are
    skipped, an image above the highest of those is left out too, because the record cannot clear it. Raises
    DatasetError where training images are refused and there are some, or where skipping leaves none.
    """
    fingerprints = list(progress(fingerprint_images(images), len(images), "comparing"))
    known = file.training_images
    trained_on = [image for image, found in zip(images, fingerprints, strict=True) if found in known]
    if not trained_on or training == "allow":
        return list(images), len(trained_on)
    complete = len(known) >= file.info.provenance.training_images
    highest = max(known)
    others = [
        image
        for image, found in zip(images, fingerprints, strict=True)
        if found is None or (found not in known and (complete or found < highest))
    ]
    if training == "refuse":
        raise DatasetError(_describe_overlap(images, trained_on, len(others)))
    if not others:
        raise DatasetError(
            f"all {len(images)} images were trained on, so skipping those leaves none; give images held out of training"
        )
    return others, 0


def _describe_overlap(images: Sequence[LabelledImage], trained_on: Sequence[LabelledImage], others: int) -> str:
    cure = "--allow-training-images uses them anyway"
    if others:
        cure = f"--skip-training-images calibrates on the other {others}, {cure}"
    return (
        f"{len(trained_on)} of {len(images)} images were trained on, such as {str(trained_on[0].path)!r}: their scores "
        f"are lower than new parts' will be, and so would the threshold be; {cure}"
    )


def _score_marks(
    inspector: Inspector, images: Sequence[LabelledImage], progress: Progress
) -> tuple[tuple[float, ...], ...]:
    """Return the scores of good images with test marks drawn on, of at most `MAX_MARKED` evenly chosen ones."""
    good = [image.path for image in images if not image.defective]
    chosen = [good[position] for position in np.unique(np.linspace(0, len(good) - 1, MAX_MARKED).astype(int))]

    def score(numbered: tuple[int, Path]) -> tuple[float, ...]:
        number, path = numbered
        return score_probe_defects(inspector, inspector.prepare(read_image(path)), number)

    return tuple(progress(in_order(score, enumerate(chosen)), len(chosen), "drawing test marks"))


def _collect(observations: Iterable[Observation | Fault], total: int, pixels: PixelScores) -> list[ScoredImage]:
    """Gather all scores, and what is needed of the error maps; raise where an image could not be scored."""
    results: list[ScoredImage] = []
    faults: list[Fault] = []
    for observation in observations:
        if isinstance(observation, Fault):
            faults.append(observation)
            continue
        results.append(observation.scored)
        pixels.add(observation)
    if faults:
        raise _describe_faults(faults, total)
    return results


def _describe_faults(faults: Sequence[Fault], total: int) -> DatasetError | ModelFileError:
    by_model = [fault for fault in faults if fault.by_model]
    shown = by_model or faults
    examples = "; ".join(f"{str(fault.image.path)!r}: {fault.reason}" for fault in shown[:3])
    count = f"{len(shown)} of {total} images cannot be scored ({examples})"
    if by_model:
        return ModelFileError(f"{count}; nothing was stamped: the model is at fault, so train and export it again")
    return DatasetError(f"{count}; nothing was stamped: repair or remove them")
