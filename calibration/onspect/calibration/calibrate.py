"""Calibration: score labelled images, choose a threshold by a policy, and stamp it with its evidence into the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.claims import (
    find_unsupported_claim,
    measure_area_intervals,
    measure_rates,
    measure_threshold_interval,
)
from onspect.calibration.histogram import ErrorHistogram, find_bins
from onspect.calibration.metrics import Confusion, count_confusion, measure_areas
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
from onspect.calibration.thresholds import Policy, check_policy, choose_threshold
from onspect.runtime.console import progress
from onspect.runtime.errors import DatasetError, ModelFileError, UncalibratedError
from onspect.runtime.files import fingerprint_set
from onspect.runtime.inspector import Inspector
from onspect.runtime.layout import LabelledImage
from onspect.runtime.model_file import Calibration, ModelFile, Rule, Threshold, read_model_file, restamp
from onspect.runtime.verdict import now

MAP_SHARE = 0.999
"""The share of the good images' pixels that lie below the map threshold.

For a score that is not the map's maximum. Regions are drawn where the error map reaches it: one pixel in a thousand
marks a few pixels on a good part, so good parts stay almost clean, and what is higher than that is worth a box; at
99.5% a 256 x 256 map of a good part would have 328 marked pixels on average, at 99.99% a single odd image among a
hundred would set the value alone.
"""

TrainingImages = Literal["refuse", "skip", "allow"]
"""What to do with images that the model was trained on."""


@dataclass(frozen=True)
class Outcome:
    """What was stamped.

    source: where the images came from, in words. left_out: images not used because the model was trained on them.
    notes: what makes the threshold less sure, one sentence each.
    """

    threshold: Threshold
    calibration: Calibration
    confusion: Confusion
    source: str
    left_out: int
    notes: tuple[str, ...]


def calibrate(
    model: Path,
    data: Path,
    *,
    split: str = "val",
    policy: Policy | None = None,
    training: TrainingImages = "refuse",
    strict: bool = False,
) -> Outcome:
    """Set a model file's threshold from the labelled images of a dataset's split; the graph's bytes stay as they are.

    policy defaults to the highest F1 where there are defective images, else to 99% of the good ones passing. Where the
    score is the error map's maximum, the map's threshold is the score's, so that a part is ``ng`` exactly where it has
    a region; else it is the `MAP_SHARE` quantile of the good images' error maps. Nothing is stamped where this raises:
    ModelFileError for a file that cannot be used or whose scores are no numbers; DatasetError where images are
    missing, cannot be read, were trained on (unless skipped or allowed), do not do for the policy, or (with strict)
    are too few to support what was asked for.
    """
    file = read_model_file(model)
    inspector = Inspector(file)
    found = find_images(data, split)
    images, trained_on = select_images(found, file, training)
    defects = sum(image.defective for image in images)
    policy = policy or (Policy("max_f1") if defects else Policy("quantile", 0.99))
    check_policy(policy, len(images) - defects, defects)
    results, good_errors = _collect(progress(score_images(inspector, images), len(images), "scoring"), len(images))
    good, defective = part_scores(results)
    evidence = _Evidence(
        data=data.resolve().name,
        counts=count_kinds(images),
        images=fingerprint_set(result.fingerprint for result in results),
        good=good,
        defective=defective,
        trained_on=trained_on,
    )
    threshold, calibration, confusion, notes = _weigh(
        file, evidence, policy, strict, good_errors.find_quantile(MAP_SHARE)
    )
    restamp(file, threshold, calibration)
    return Outcome(threshold, calibration, confusion, name_source(data, split), len(found) - len(images), notes)


def move_threshold(model: Path, policy: Policy, *, strict: bool = False) -> Outcome:
    """Set a model file's threshold anew from the scores that its calibration left in it; no image is read.

    Raises ModelFileError where the file cannot be used, UncalibratedError where it holds no scores, DatasetError where
    they do not do for the policy or (with strict) are too few to support it. Nothing is stamped where this raises.
    """
    file = read_model_file(model)
    old = file.info.calibration
    if old is None or file.info.threshold is None or not old.good_scores:
        raise UncalibratedError(
            f"{str(model)!r} holds no calibration scores to move its threshold on: run 'onspect calibrate {model} DATA'"
        )
    evidence = _Evidence(
        data=old.data,
        counts=old.counts,
        images=old.images,
        good=np.array(old.good_scores),
        defective=np.array(old.defective_scores),
        trained_on=old.training_images,
    )
    threshold, calibration, confusion, notes = _weigh(file, evidence, policy, strict, file.info.threshold.map)
    restamp(file, threshold, calibration)
    return Outcome(threshold, calibration, confusion, f"the scores in {model.name} of {old.data}", 0, notes)


@dataclass(frozen=True)
class _Evidence:
    """What a threshold is chosen on: scores, float64, and what there is to say about their images."""

    data: str
    counts: dict[str, int]
    images: str
    good: NDArray[np.float64]
    defective: NDArray[np.float64]
    trained_on: int


def _weigh(
    file: ModelFile, evidence: _Evidence, policy: Policy, strict: bool, map_threshold: float
) -> tuple[Threshold, Calibration, Confusion, tuple[str, ...]]:
    """Choose a threshold by a policy, and measure what it does on the evidence."""
    good, defective, trained_on = evidence.good, evidence.defective, evidence.trained_on
    check_policy(policy, len(good), len(defective))
    score = choose_threshold(policy, good, defective)
    threshold = Threshold(score, score if file.info.score.is_peak else map_threshold)
    confusion = count_confusion(good, defective, threshold)
    unsupported = find_unsupported_claim(policy, confusion)
    if strict and unsupported is not None:
        raise DatasetError(f"{unsupported}; nothing was stamped")
    areas = measure_areas(good, defective)
    calibration = Calibration(
        policy=policy.describe() + (f" ({trained_on} training images among them)" if trained_on else ""),
        data=evidence.data,
        counts=evidence.counts,
        auroc=areas.auroc,
        aupr=areas.aupr,
        true_ng=confusion.true_ng,
        false_ng=confusion.false_ng,
        true_ok=confusion.true_ok,
        false_ok=confusion.false_ok,
        images=evidence.images,
        time=now(),
        intervals={
            **measure_rates(confusion),
            **measure_area_intervals(good, defective),
            **measure_threshold_interval(policy, good, defective),
        },
        training_images=trained_on,
        good_scores=tuple(np.sort(good).tolist()),
        defective_scores=tuple(np.sort(defective).tolist()),
        rule=Rule(**dataclasses.asdict(policy)),
    )
    notes = [] if unsupported is None else [unsupported]
    if confusion.false_ng and not confusion.true_ok:
        notes.append("this threshold rejects every good image: the model does not tell good from defective parts here")
    if trained_on:
        notes.append(f"{trained_on} of the images were trained on: expect more false rejects than this table shows")
    return threshold, calibration, confusion, tuple(notes)


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


def _collect(observations: Iterable[Observation | Fault], total: int) -> tuple[list[ScoredImage], ErrorHistogram]:
    """Gather all scores and a histogram of the good images' errors; raise where an image could not be scored."""
    results: list[ScoredImage] = []
    faults: list[Fault] = []
    good_errors = ErrorHistogram()
    for observation in observations:
        if isinstance(observation, Fault):
            faults.append(observation)
            continue
        results.append(observation.scored)
        if not observation.scored.image.defective:
            good_errors.add(find_bins(observation.error_map))
    if faults:
        raise _describe_faults(faults, total)
    return results, good_errors


def _describe_faults(faults: Sequence[Fault], total: int) -> DatasetError | ModelFileError:
    by_model = [fault for fault in faults if fault.by_model]
    shown = by_model or faults
    examples = "; ".join(f"{str(fault.image.path)!r}: {fault.reason}" for fault in shown[:3])
    count = f"{len(shown)} of {total} images cannot be scored ({examples})"
    if by_model:
        return ModelFileError(f"{count}; nothing was stamped: the model is at fault, so train and export it again")
    return DatasetError(f"{count}; nothing was stamped: repair or remove them")
