"""Evaluation: measure a calibrated model on labelled images that it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onspect.calibration.figures import Evaluation, KindMetrics
from onspect.calibration.fitness import Requirement
from onspect.calibration.masks import MaskReader
from onspect.calibration.metrics.image import (
    Confusion,
    Noun,
    count_confusion,
    measure_area_intervals,
    measure_areas,
    measure_rates,
)
from onspect.calibration.overlap import Repeats, compare_with_calibration, compare_with_training
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
from onspect.calibration.test_split import compare_with_test_split
from onspect.runtime.atomic import check_place
from onspect.runtime.dataset.folder import GOOD, LabelledImage
from onspect.runtime.dataset.groups import group_names
from onspect.runtime.errors import DatasetError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.regions import find_regions
from onspect.runtime.inspection.verdict import decide, now
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.model.schema import Threshold
from onspect.runtime.progress import Progress, no_progress


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    report: str | Path | None = None,
    title: str | None = None,
    fields: Mapping[str, str] | None = None,
    split: str = "test",
    max_fpr: float | None = None,
    min_recall: float | None = None,
    group: str | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure a model file on labelled images that it has not seen, at its threshold if it has one.

    Parameters
    ----------
    model
        The model file.
    data
        A dataset folder: ``test/good/`` and ``test/DEFECT/``, and optional masks in ``ground_truth/``.
    report
        A folder for report.html and metrics.json, which are replaced when both are complete; None to write nothing.
    title
        Heading of the report; None for the field ``part``, otherwise the model's name.
    fields
        Names and values for the head of the report, such as part, camera, lens, light and line.
    split
        ``val`` or ``test``: the folder of the dataset.
    max_fpr, min_recall
        Requirements, as in `Requirement`; None for those of the calibration.
    group
        A regular expression for file names. Images with the same match show one part. All figures but those of pixels
        then count parts, each by its worst image (`part_scores`). None: each image shows its own part.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    Evaluation
        Metrics with their confidence intervals, and the result for each image.

    Raises
    ------
    ChoiceError
        If a rate or a pattern is not valid.
    ModelFileError
        If the file cannot be used.
    DatasetError
        If there are no images, none can be judged, or the pattern does not match one.
    OutputError
        If the report cannot be written.
    """
    data = Path(data)
    requirement = Requirement(max_fpr, min_recall)
    file = read_model_file(Path(model))
    inspector = Inspector(file)
    images = find_images(data, split)
    group_names([image.path for image in images], group)  # a wrong pattern is refused before any work
    if report is not None:
        check_place(Path(report), folder=True)
    evaluation = evaluate_images(
        inspector, file, images, source=name_source(data, split), group=group, progress=progress
    )
    evaluation = replace(evaluation, requirement=requirement)
    if report is not None:
        from onspect.calibration.report.page import write_report  # imports this module, and a plotting library

        write_report(Path(report), evaluation, inspector, title, fields=fields or {})
    return evaluation


def evaluate_images(
    inspector: Inspector,
    model: ModelFile,
    images: Sequence[LabelledImage],
    *,
    source: str,
    group: str | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score labelled images and measure the model on them, at its threshold if it has one.

    Parameters
    ----------
    inspector
        The model, ready to run.
    model
        The model file that `inspector` runs.
    images
        Labelled images.
    source
        Origin of the images as text.
    group
        Regular expression for file names: images with the same match show one part. None: each image shows its own
        part.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    Evaluation
        Metrics with their confidence intervals, and the result for each image.

    Raises
    ------
    DatasetError
        If no image can be judged.
    """
    threshold = inspector.info.threshold
    masks = MaskReader(wanted=any(image.mask for image in images))
    results: list[ScoredImage] = []
    faults: list[Fault] = []
    shown: Counter[str] = Counter()
    repeats = Repeats()
    for observation in progress(score_images(inspector, images), len(images), "scoring"):
        if isinstance(observation, Fault):
            faults.append(observation)
        elif not repeats.is_repeat(observation.scored.image, observation.scored.pixels):
            results.append(observation.scored)
            masks.add(observation)
            shown[observation.scored.image.kind] += threshold is not None and _shows_region(observation, threshold)
    if not results:
        raise DatasetError(
            f"no image can be judged; {len(faults)} of {len(images)} failed, such as "
            f"{str(faults[0].image.path)!r}: {faults[0].reason}"
        )
    good, defective = part_scores(results, group)
    calibration = model.info.calibration
    fingerprints = [result.fingerprint for result in results]
    unread = filter(None, fingerprint_images([fault.image for fault in faults]))
    noun: Noun = "image" if group is None else "part"
    none = Confusion(0, 0, 0, 0, noun=noun)
    confusion = none if threshold is None else count_confusion(good, defective, threshold, noun)
    return Evaluation(
        model=model,
        threshold=threshold,
        source=source,
        time=now(),
        results=tuple(results),
        faults=tuple(faults),
        areas=measure_areas(good, defective),
        confusion=confusion,
        kinds=_measure_kinds(images, results, group, threshold),
        pixels=masks.measure(None if threshold is None else threshold.map),
        shown={kind: shown[kind] for kind in count_kinds([result.image for result in results])},
        trained_on=sum(fingerprint in model.training_images for fingerprint in fingerprints),
        calibrated_on=calibration is not None and calibration.images == fingerprint_set(fingerprints),
        of_training=compare_with_training(results, model),
        of_calibration=compare_with_calibration(results, model),
        test_split=compare_with_test_split([*fingerprints, *unread], model),
        intervals=measure_area_intervals(good, defective)
        | measure_rates(confusion, banded=threshold is not None and threshold.review is not None),
        repeats=tuple(repeats.paths),
        group=group,
    )


def _shows_region(observation: Observation, threshold: Threshold) -> bool:
    """Return whether the verdict on an image has a region."""
    verdict = decide(observation.scored.score, threshold)
    return bool(find_regions(observation.error_map, threshold, observation.width, observation.height, verdict))


def _measure_kinds(
    images: Sequence[LabelledImage],
    results: Sequence[ScoredImage],
    group: str | None,
    threshold: Threshold | None,
) -> dict[str, KindMetrics]:
    kinds = {}
    good, _ = part_scores(results, group)
    for kind in sorted({image.kind for image in images} - {GOOD}):
        _, scores = part_scores([result for result in results if result.image.kind == kind], group)
        counts = Confusion(0, 0, 0, 0) if threshold is None else count_confusion(good[:0], scores, threshold)
        kinds[kind] = KindMetrics(measure_areas(good, scores), counts, len(scores))
    return kinds
