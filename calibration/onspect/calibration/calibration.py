"""Calibration: score labelled images, choose a threshold by a policy, and write it with its evidence into the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onspect.calibration.metrics.image import IMAGE_METRICS, Confusion, measure_area_intervals, measure_areas
from onspect.calibration.overlap import (
    TrainingImages,
    compare_with_training,
    describe_repeats,
    describe_twins,
    drop_repeats,
    select_images,
)
from onspect.calibration.regions import (
    PixelScores,
    RegionCuts,
    RegionDemand,
    check_regions,
    choose_area,
    choose_map,
    move_map,
)
from onspect.calibration.review import Band
from onspect.calibration.scores import (
    Fault,
    Observation,
    ScoredImage,
    count_kinds,
    count_sides,
    find_images,
    list_worst,
    name_source,
    part_scores,
    score_images,
)
from onspect.calibration.stamping import CalibrationResult, Evidence, stamp_threshold
from onspect.calibration.test_split import describe_overlap, describe_test_split, find_test_split
from onspect.calibration.thresholds import Policy, default_policy
from onspect.runtime.dataset.folder import GOOD, LabelledImage
from onspect.runtime.dataset.near_duplicates import hash_look
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError, UncalibratedError
from onspect.runtime.fingerprints import fingerprint_set, pack_fingerprints, unpack_fingerprints
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.batch import in_order
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.file import read_model_file
from onspect.runtime.model.schema import Calibration
from onspect.runtime.outliers import find_lone_scores
from onspect.runtime.progress import Progress, no_progress
from onspect.runtime.recalibration.probe_defects import MAX_MARKED, score_probe_defects


def calibrate(
    model: str | Path,
    data: str | Path,
    policy: Policy | None = None,
    *,
    band: Band | None = None,
    regions: RegionDemand | None = None,
    split: str = "val",
    group: str | None = None,
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
    group
        A regular expression for file names: images with the same match show one part. The policy and all rates then
        count parts, each by its worst image (`part_scores`). None: each image shows a part of its own.
    training
        Handling of images that the model was trained on: ``refuse``, ``skip`` or ``allow``.
    strict
        Whether doubts are an error. DatasetError if the images are too few for the requirement, or if a good image's
        score is an outlier. The same error if the model does not separate good from defective images.
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
    of_good, of_defects = count_sides(images, group)
    policy = policy or default_policy(of_defects)
    policy.check(of_good, of_defects)
    if band is not None:
        band.check(of_good, of_defects)
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
    good, defective = part_scores(results, group)
    areas = measure_areas(good, defective)
    test, unknown = find_test_split(inspector, data, split, progress)
    record = Calibration(
        policy="",
        data=data.resolve().name,
        counts=count_kinds(images, group),
        auroc=areas.auroc,
        aupr=areas.aupr,
        **Confusion(0, 0, 0, 0).counts,
        images=fingerprint_set(result.fingerprint for result in results),
        time="",
        intervals=dict(measure_area_intervals(good, defective)),
        training_images=trained_on,
        mark_scores=_score_marks(inspector, images, progress),
        fingerprints=pack_fingerprints(result.fingerprint for result in results),
        looks=pack_fingerprints(hash_look(result.look, file.looks) for result in results),
        held_back=describe_test_split(test),
    )
    names = tuple(str(result.image.path) for result in list_worst(results, group)[0])
    evidence = Evidence(record, good, defective, len(images), names, len(trimmed))

    def score_again() -> Iterator[Observation]:
        again = progress(score_images(inspector, images), len(images), "measuring regions")
        return (observation for observation in again if isinstance(observation, Observation))

    def choose_regions(cut: float) -> RegionCuts:
        cuts = choose_map(regions, pixels, cut, is_peak=file.info.score.is_peak)
        return choose_area(cuts, regions.area, score_again)

    source = name_source(data, split)
    outcome = stamp_threshold(file, evidence, (policy, band), choose_regions, source, strict=strict)
    twins = describe_twins(
        compare_with_training(results, file).twins,
        len(results),
        "images that the model was trained on",
        "if they show the same parts, their scores are lower than those of new parts, and the threshold is too low; "
        "keep all pictures of a part in one folder of the dataset",
    )
    left_out_words = [] if not trimmed else [f"left out by --trim: {_name_lone(trimmed)}"]
    notes = (*outcome.notes, *describe_repeats(repeats, len(selected)), *left_out_words, *twins, *unknown)
    notes += tuple(describe_overlap(test, results, file))
    return dataclasses.replace(outcome, left_out=len(found) - len(selected), notes=notes)


def _read_options(
    options: Mapping[str, Any], policy: Policy | None, band: Band | None, regions: RegionDemand | None
) -> tuple[Policy | None, Band | None, RegionDemand]:
    """Return the rules as objects; ChoiceError if a rule is given both as an object and by options."""
    bands, of_regions = Band.list_options(), RegionDemand.OPTIONS
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
    good, areas = np.array(old.good_scores), {metric.name for metric in IMAGE_METRICS}
    trimmed = find_lone_scores(good) if trim else []
    record = dataclasses.replace(
        old,
        counts=old.counts | ({GOOD: len(good) - len(trimmed)} if trimmed else {}),
        intervals={name: ends for name, ends in old.intervals.items() if name in areas},
        recalibrated=0,
    )
    pictures = max(len(unpack_fingerprints(old.fingerprints)) - len(trimmed), 0)
    defective = np.array(old.defective_scores)
    evidence = Evidence(record, np.delete(good, trimmed), defective, pictures, trimmed=len(trimmed))
    policy = policy or default_policy(len(evidence.defective))
    threshold, area = file.info.threshold, file.info.threshold.area

    def choose_regions(cut: float) -> RegionCuts:
        moved = move_map(threshold, old.map_rule, cut, is_peak=file.info.score.is_peak)
        return RegionCuts(moved, area, old.map_rule, old.area_rule)

    source = f"the scores in {model.name} of {old.data}"
    return stamp_threshold(file, evidence, (policy, band), choose_regions, source, strict=strict)


def find_lone_images(results: Sequence[ScoredImage]) -> list[ScoredImage]:
    """Return the good images with outlying scores.

    Parameters
    ----------
    results
        Scored images of all kinds.

    Returns
    -------
    list[ScoredImage]
        The outliers, highest score first.
    """
    good = [result for result in results if not result.image.defective]
    return [good[place] for place in find_lone_scores([result.score for result in good])]


def _name_lone(lone: Sequence[ScoredImage]) -> str:
    return ", ".join(f"{str(result.image.path)!r} (score {result.score:.6g})" for result in lone[:3]) + (
        f" and {len(lone) - 3} more" if len(lone) > 3 else ""
    )


def _score_marks(
    inspector: Inspector, images: Sequence[LabelledImage], progress: Progress
) -> tuple[tuple[float, ...], ...]:
    """Return the scores of at most `MAX_MARKED` evenly chosen good images with test marks drawn on them."""
    good = [image.path for image in images if not image.defective]
    chosen = [good[position] for position in np.unique(np.linspace(0, len(good) - 1, MAX_MARKED).astype(int))]

    def score(numbered: tuple[int, Path]) -> tuple[float, ...]:
        number, path = numbered
        return score_probe_defects(inspector, inspector.prepare(read_image(path)), number)

    return tuple(progress(in_order(score, enumerate(chosen)), len(chosen), "drawing test marks"))


def _collect(observations: Iterable[Observation | Fault], total: int, pixels: PixelScores) -> list[ScoredImage]:
    """Return the scored images and add their error maps to `pixels`; raise an error if an image has no score."""
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
