"""Calibration: score labelled images, choose a threshold by a policy, and stamp it with its evidence into the file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.blindness import find_blindness
from onspect.calibration.metrics.image import Confusion, count_confusion, measure_areas
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
from onspect.calibration.review import Band, check_band, choose_review
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
from onspect.calibration.statistics.support import (
    find_unsupported_claims,
    measure_area_intervals,
    measure_rates,
    measure_threshold_interval,
)
from onspect.calibration.test_split import describe_overlap, find_held_back, hold_back
from onspect.calibration.thresholds import Policy, check_policy, choose_threshold
from onspect.runtime.cli.base import progress
from onspect.runtime.dataset.folder import GOOD, LabelledImage
from onspect.runtime.dataset.near_duplicates import hash_look
from onspect.runtime.errors import DatasetError, ModelFileError, UncalibratedError
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.batch import in_order
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, read_model_file, restamp
from onspect.runtime.model.schema import Calibration, HeldBack, Rule, Threshold
from onspect.runtime.outliers import find_lone_scores, name_some
from onspect.runtime.recalibration.probe_defects import MAX_MARKED, score_marks

TrainingImages = Literal["refuse", "skip", "allow"]
"""What to do with images that the model was trained on."""


@dataclass(frozen=True)
class Outcome:
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


def calibrate(
    model: Path,
    data: Path,
    *,
    split: str = "val",
    policy: Policy | None = None,
    band: Band | None = None,
    regions: RegionDemand | None = None,
    training: TrainingImages = "refuse",
    strict: bool = False,
    trim: bool = False,
) -> Outcome:
    """Set a model file's threshold from the labelled images of a dataset's split; the graph's bytes stay as they are.

    policy defaults to the highest F1 where there are defective images, else to 99% of the good ones passing. band adds
    a review band below the threshold. Where nothing is asked of regions and the score is the error map's maximum, the
    map's cut is the lower of the score's, so that a part has a region exactly where it is not ``ok``. Equal files count
    once. Good images whose score stands alone are named; trim leaves them out. Nothing is stamped where this raises:
    ModelFileError for a file that cannot be used or whose scores are no numbers; DatasetError where images are
    missing, cannot be read, were trained on (unless skipped or allowed), do not do for the policy, or (with strict)
    are too few to support what was asked for, have a good one whose score stands alone, or show that the model does not
    tell good from defective parts.
    """
    file = read_model_file(model)
    inspector = Inspector(file)
    found = find_images(data, split)
    selected, trained_on = select_images(found, file, training)
    images, repeats = drop_repeats(selected)
    defects = sum(image.defective for image in images)
    policy = policy or (Policy("max_f1") if defects else Policy("quantile", 0.99))
    check_policy(policy, len(images) - defects, defects)
    check_band(band, defects)
    regions = regions or RegionDemand()
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
    test, unknown = find_held_back(inspector, data, split)
    evidence = _Evidence(
        data=data.resolve().name,
        counts=count_kinds(images),
        images=fingerprint_set(result.fingerprint for result in results),
        good=good,
        defective=defective,
        trained_on=trained_on,
        marks=_score_marks(inspector, images),
        fingerprints=pack_fingerprints(result.fingerprint for result in results),
        looks=pack_fingerprints(hash_look(result.look, file.looks) for result in results),
        auroc=areas.auroc,
        aupr=areas.aupr,
        areas=measure_area_intervals(good, defective),
        held_back=hold_back(test),
        names=tuple(str(result.image.path) for result in results if not result.image.defective),
        trimmed=len(trimmed),
    )
    demand = _Demand(policy, band, strict)

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


def move_threshold(
    model: Path, policy: Policy, *, band: Band | None = None, strict: bool = False, trim: bool = False
) -> Outcome:
    """Set a model file's threshold anew from the scores that its calibration left in it; no image is read.

    trim leaves out good scores that stand alone.

    Raises ModelFileError where the file cannot be used, UncalibratedError where it holds no scores, DatasetError where
    they do not do for the policy or (with strict) are too few to support it. Nothing is stamped where this raises.
    """
    file = read_model_file(model)
    old = file.info.calibration
    if old is None or file.info.threshold is None or not old.good_scores:
        raise UncalibratedError(
            f"{str(model)!r} holds no calibration scores to move its threshold on: run 'onspect calibrate {model} DATA'"
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
    threshold, area = file.info.threshold, file.info.threshold.area

    def choose_regions(cut: float) -> RegionCuts:
        moved = move_map(threshold, old.map_rule, cut, is_peak=file.info.score.is_peak)
        return RegionCuts(moved, area, old.map_rule, old.area_rule)

    source = f"the scores in {model.name} of {old.data}"
    return _stamp(file, evidence, _Demand(policy, band, strict), choose_regions, source)


def _stamp(
    file: ModelFile,
    evidence: _Evidence,
    demand: _Demand,
    choose_regions: Callable[[float], RegionCuts],
    source: str,
) -> Outcome:
    """Choose a threshold, measure it and write both into the file; choose_regions takes the lower of the cuts."""
    score, review, interval = _choose_cuts(evidence, demand)
    regions = choose_regions(score if review is None else review)
    threshold = Threshold(score, regions.map, review, regions.area)
    confusion = count_confusion(evidence.good, evidence.defective, threshold)
    unsupported = [*find_unsupported_claims(demand.policy, demand.band, confusion), *regions.unsupported]
    lone = _note_lone(evidence, demand.policy, score)
    calibration = _describe_evidence(evidence, demand, threshold, confusion, interval, regions)
    blindness = find_blindness(evidence.auroc, calibration.intervals, confusion)
    if demand.strict and (unsupported or lone or blindness):
        raise DatasetError(f"{'; '.join([*blindness, *unsupported, *lone])}; nothing was stamped")
    restamp(file, threshold, calibration)
    notes = [*lone, *unsupported, *_note_doubts(evidence), *regions.notes]
    notes += _note_band(file.info.threshold, threshold, demand)
    words = "; ".join(filter(None, [describe_regions(regions.map_rule, regions.area_rule), regions.shown]))
    return Outcome(threshold, calibration, confusion, source, 0, demand.band, words, tuple(notes), tuple(blindness))


def _note_lone(evidence: _Evidence, policy: Policy, threshold: float) -> list[str]:
    """Name the good images whose score stands alone, with the threshold that the others give."""
    lone = [] if policy.value is not None else find_lone_scores(evidence.good)
    if not lone:
        return []
    rest = np.delete(evidence.good, lone)
    try:
        without = f"the threshold is {threshold:.6g} with and {choose_threshold(policy, rest, evidence.defective):.6g} "
    except DatasetError:
        without = "the others are too few for a threshold "
    scores = ", ".join(f"{evidence.good[place]:.6g}" for place in lone[:3])
    names = f": {name_some([evidence.names[place] for place in lone])}" if evidence.names else ""
    images = f"{len(lone)} of {len(evidence.good)} good images " + ("stand" if len(lone) > 1 else "stands")
    cure = "without; check the picture, and move it if it is not good, or leave it out with --trim"
    return [f"{images} alone with a score of {scores}, the next is {rest.max():.6g}{names}; {without}{cure}"]


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
class _Demand:
    """What is asked of a threshold; strict makes an error of what the images do not support."""

    policy: Policy
    band: Band | None
    strict: bool


def _choose_cuts(evidence: _Evidence, demand: _Demand) -> tuple[float, float | None, dict[str, Interval]]:
    """Return the cut for ``ng``, where the review band begins below it, and the cut's own interval."""
    good, defective = evidence.good, evidence.defective
    check_policy(demand.policy, len(good), len(defective))
    check_band(demand.band, len(defective))
    score = choose_threshold(demand.policy, good, defective)
    interval = measure_threshold_interval(demand.policy, good, defective)
    if demand.band is None:
        return score, None, interval
    return score, choose_review(demand.band, good, defective, score, interval.get("threshold")), interval


def _describe_evidence(
    evidence: _Evidence,
    demand: _Demand,
    threshold: Threshold,
    confusion: Confusion,
    interval: dict[str, Interval],
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
            **{name: tuple(end if math.isfinite(end) else None for end in ends) for name, ends in interval.items()},
        },
        training_images=trained_on,
        good_scores=tuple(np.sort(good).tolist()),
        defective_scores=tuple(np.sort(defective).tolist()),
        rule=Rule(**dataclasses.asdict(demand.policy)),
        review_good=confusion.review_good,
        review_defective=confusion.review_defective,
        mark_scores=evidence.marks,
        review_rule=None if demand.band is None else Rule(**dataclasses.asdict(demand.band)),
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


def _describe_demand(demand: _Demand, threshold: Threshold, trained_on: int, trimmed: int) -> str:
    words = demand.policy.describe()
    if demand.band is not None and threshold.review is not None:
        words += f"; {demand.band.describe()}"
    words += f" ({trained_on} training image{'s' * (trained_on != 1)} among them)" if trained_on else ""
    return words + (f" ({trimmed} good image{'s' * (trimmed != 1)} left out by --trim)" if trimmed else "")


def _note_band(old: Threshold | None, threshold: Threshold, demand: _Demand) -> list[str]:
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
    images: Sequence[LabelledImage], file: ModelFile, training: TrainingImages
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
    cure = "--allow-training-images uses them all the same"
    if others:
        cure = f"--skip-training-images calibrates on the other {others}, {cure}"
    return (
        f"{len(trained_on)} of {len(images)} images were trained on, such as {str(trained_on[0].path)!r}: their scores "
        f"are lower than new parts' will be, and so would the threshold be; {cure}"
    )


def _score_marks(inspector: Inspector, images: Sequence[LabelledImage]) -> tuple[tuple[float, ...], ...]:
    """Return the scores of good images with test marks drawn on, of at most `MAX_MARKED` evenly chosen ones."""
    good = [image.path for image in images if not image.defective]
    chosen = [good[position] for position in np.unique(np.linspace(0, len(good) - 1, MAX_MARKED).astype(int))]

    def score(numbered: tuple[int, Path]) -> tuple[float, ...]:
        number, path = numbered
        return score_marks(inspector, inspector.prepare(read_image(path)), number)

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
