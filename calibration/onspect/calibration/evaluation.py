"""Evaluation: every figure that says how a calibrated model does on labelled images it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.blindness import find_blindness
from onspect.calibration.fitness import Fitness, Requirement, find_targets, judge_fitness
from onspect.calibration.masks import MaskReader, PixelMetrics
from onspect.calibration.metrics.image import (
    RATES,
    Areas,
    Confusion,
    count_confusion,
    measure_area_intervals,
    measure_areas,
    measure_rates,
)
from onspect.calibration.metrics.pixel import FPR_LIMIT
from onspect.calibration.overlap import Overlap, compare_with_calibration, compare_with_training, describe_twins
from onspect.calibration.repeats import Repeats, describe_repeats
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
from onspect.calibration.statistics.support import Target
from onspect.calibration.test_split import SplitShare, compare_with_test_split
from onspect.runtime.atomic import make_folder
from onspect.runtime.dataset.folder import GOOD, LabelledImage
from onspect.runtime.dataset.groups import group_names
from onspect.runtime.errors import DatasetError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.regions import find_regions
from onspect.runtime.inspection.verdict import decide, now
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.model.schema import Threshold
from onspect.runtime.outliers import find_lone_scores, name_some
from onspect.runtime.progress import Progress, no_progress

NOT_JUDGED = Confusion(0, 0, 0, 0)
"""How images are judged without a threshold: not at all."""

_NOTHING_MORE = Requirement()


@dataclass(frozen=True)
class KindMetrics:
    """How one kind of defect fares: areas against all good images, and how many were caught (ng) and missed (ok).

    reviewed: how many were sent to a person. unjudged: how many were only scored, because there is no threshold.
    """

    areas: Areas
    caught: int
    missed: int
    reviewed: int = 0
    unjudged: int = 0

    @property
    def images(self) -> int:
        """How many images of the kind were scored."""
        return self.caught + self.missed + self.reviewed + self.unjudged

    @property
    def recall(self) -> float | None:
        """The share that was caught, None where no image of the kind was judged."""
        judged = self.images - self.unjudged
        return self.caught / judged if judged else None


@dataclass(frozen=True)
class Evaluation:
    """All that was measured.

    threshold: None where the file has none; then nothing is judged, and the figures without a threshold remain.
    parts: how distinct parts were judged, each by the worst of its images; as `confusion` where each image is a
    part. source: description of the images' origin. results: the scored images; faults: the others. shown: how
    many images of each kind have a region. trained_on: images (of results) that the model was trained on.
    calibrated_on: whether these are the very images that the threshold was chosen on. of_training, of_calibration:
    what they share with those others. test_split: how all images, faults too, compare with the test images that
    stood beside the calibration's; None where the file does not say. intervals: 95% intervals of ``auroc``,
    ``aupr``, ``fpr`` and ``recall``, with a review band of ``review`` and ``escapes`` too, those of them that could
    be had. repeats: files that equal an earlier one; they count once. group: the pattern that tells parts apart.
    """

    model: ModelFile
    threshold: Threshold | None
    source: str
    time: str
    results: tuple[ScoredImage, ...] = field(repr=False)
    faults: tuple[Fault, ...]
    areas: Areas
    confusion: Confusion
    kinds: dict[str, KindMetrics]
    pixels: PixelMetrics
    shown: dict[str, int]
    trained_on: int
    calibrated_on: bool
    of_training: Overlap
    of_calibration: Overlap
    test_split: SplitShare | None
    intervals: dict[str, Interval]
    parts: Confusion
    repeats: tuple[Path, ...] = ()
    requirement: Requirement = _NOTHING_MORE
    group: str | None = None

    def __str__(self) -> str:
        from onspect.calibration.report.tables import describe_evaluation  # it imports this module

        return describe_evaluation(self)

    @property
    def blindness(self) -> list[str]:
        """Why the model is of no use on these images, one sentence each; mostly none."""
        return find_blindness(self.areas.auroc, self.intervals, self.confusion)

    @property
    def banded(self) -> bool:
        """Whether there is a review band."""
        return self.threshold is not None and self.threshold.review is not None

    @property
    def targets(self) -> list[Target]:
        """Each rate that is required, beside that of these parts."""
        calibration = self.model.info.calibration
        return find_targets(calibration, self.parts, banded=self.banded, requirement=self.requirement)

    @property
    def fitness(self) -> Fitness | None:
        """Whether the model is fit for use, by these parts; None without a threshold."""
        if self.threshold is None:
            return None
        doubts = [f"{self.trained_on} of the pictures were trained on"] if self.trained_on else []
        doubts += ["the threshold was chosen on these pictures"] if self.calibrated_on else []
        return judge_fitness(self.targets, self.parts, self.blindness, doubts)

    def count_parts(self) -> tuple[int, int]:
        """Return how many distinct good and defective parts the images show."""
        good, defective = _group_results(self.results, self.group)
        return len(set(good.tolist())), len(set(defective.tolist()))

    def list_warnings(self) -> list[str]:
        """Return what makes the figures better than they will be on the line, or incomplete; one sentence each."""
        warnings = [*self._describe_lone(), *describe_repeats(self.repeats, len(self.results) + len(self.repeats))]
        if self.trained_on:
            warnings.append(
                f"{self.trained_on} of {len(self.results)} images were trained on: "
                "these figures do not predict new parts; evaluate on images held out of training"
            )
        if self.calibrated_on:
            warnings.append(
                "the threshold was chosen on these very images: the confusion matrix is better than it will be on new "
                "parts; evaluate on other images"
            )
        shared = self.of_calibration.same
        if shared and not self.calibrated_on:
            warnings.append(
                f"{len(shared)} of {len(self.results)} images are among those that the threshold was chosen on, "
                f"such as {str(shared[0])!r}; evaluate on other images"
            )
        known = self.test_split
        if known is not None and 0 < known.here < known.held_back:
            warnings.append(
                f"{known.held_back - known.here} of the {known.held_back} test images that were held back "
                "at calibration are not among these: a choice among test images can make figures better than they are"
            )
        for overlap, whose in (
            (self.of_training, "images that the model was trained on"),
            (self.of_calibration, "images that the threshold was chosen on"),
        ):
            effect = "if they show the same parts, these figures are better than those of new parts will be"
            warnings += describe_twins(overlap.twins, len(self.results), whose, effect)
        if self.faults:
            warnings.append(
                f"{len(self.faults)} of {len(self.results) + len(self.faults)} images could not be judged (fault), "
                "and no figure but their own count includes them"
            )
        warnings += self.pixels.list_warnings()
        return warnings

    def _describe_lone(self) -> list[str]:
        good = [result for result in self.results if not result.image.defective]
        lone = find_lone_scores([result.score for result in good])
        if not lone:
            return []
        names = name_some([str(good[place].image.path) for place in lone])
        verb = "is an outlier" if len(lone) == 1 else "are outliers"
        scores = ", ".join(f"{good[place].score:.6g}" for place in lone[:3])
        return [f"{len(lone)} of {len(good)} good images {verb} with a score of {scores}: check {names}"]

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as a JSON object; null where it is undefined, with the reason beside it."""
        info = self.model.info
        return {
            "model": {"name": info.name, "sha256": self.model.sha256},
            "data": self.source,
            "time": self.time,
            "warnings": self.list_warnings(),
            "blindness": self.blindness,
            "repeats": [str(path) for path in self.repeats],
            "images": count_kinds([result.image for result in self.results]),
            "faults": [
                {"path": str(fault.image.path), "kind": fault.image.kind, "reason": fault.reason}
                for fault in self.faults
            ],
            "training_images": self.trained_on,
            "overlap": {
                name: {
                    "same": [str(path) for path in overlap.same],
                    "almost_the_same": None if overlap.twins is None else [str(path) for path in overlap.twins],
                }
                for name, overlap in (("training", self.of_training), ("calibration", self.of_calibration))
            },
            "held_back": None
            if self.test_split is None
            else asdict(self.test_split) | {"same": self.test_split.same, "words": self.test_split.describe()},
            "verdict": None if self.fitness is None else asdict(self.fitness),
            "required": asdict(self.requirement),
            "parts": dict(zip(("good", "defective"), self.count_parts(), strict=True)) | {"group": self.group},
            "threshold": None
            if self.threshold is None
            else asdict(self.threshold)
            | {
                "policy": info.calibration.policy if info.calibration else None,
                "interval": info.calibration.intervals.get("threshold") if info.calibration else None,
            },
            "image": self.areas.to_dict(),
            "intervals": self.intervals,
            "confusion": _describe_confusion(self.confusion),
            "kinds": {
                kind: {"images": metrics.images, "caught": metrics.caught, "missed": metrics.missed}
                | {"reviewed": metrics.reviewed, "recall": metrics.recall}
                | metrics.areas.to_dict()
                for kind, metrics in self.kinds.items()
            },
            "pixel": self.pixels.areas.to_dict()
            | {"fpr_limit": FPR_LIMIT, "images_with_mask": self.pixels.with_mask}
            | {"images_without_mask": self.pixels.without_mask, "images_with_empty_mask": self.pixels.empty_masks}
            | {"unreadable_masks": list(self.pixels.unreadable_masks), "good_images": self.pixels.good_images}
            | {"at_map_threshold": None if self.pixels.point is None else asdict(self.pixels.point)},
            "images_with_regions": None if self.threshold is None else self.shown,
        }


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
        A dataset folder: ``test/good/`` and ``test/DEFECT/``, with masks in ``ground_truth/`` where there are some.
    report
        A folder for report.html and metrics.json, which are replaced; None to write nothing.
    title
        Heading of the report; None for the field ``part``, otherwise the model's name.
    fields
        Names and values for the head of the report, such as part, camera, lens, light and line.
    split
        ``val`` or ``test``: the folder of the dataset.
    max_fpr, min_recall
        Requirements, as in `Requirement`; None for those of the calibration.
    group
        A regular expression for file names. Images with the same match show one part. It counts once for the
        requirements, judged by its worst image. None: each image shows its own part.
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
        make_folder(Path(report))
    evaluation = evaluate_images(inspector, file, images, source=name_source(data, split), progress=progress)
    evaluation = replace(evaluation, requirement=requirement)
    evaluation = group_parts(evaluation, group)
    if report is not None:
        from onspect.calibration.report.page import write_report  # it imports this module, and a plotting library

        write_report(Path(report), evaluation, inspector, title, fields=fields or {})
    return evaluation


def group_parts(evaluation: Evaluation, group: str | None) -> Evaluation:
    """Return an evaluation that counts parts instead of images: those with the same match of a pattern are one part."""
    if group is None:
        return evaluation
    parts = _count_parts(evaluation.results, group, evaluation.threshold)
    return replace(evaluation, parts=parts, group=group)


def _group_results(results: Sequence[ScoredImage], group: str | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the number of its part for each good and each defective image."""
    numbers = group_names([result.image.path for result in results], group)
    defective = np.array([result.image.defective for result in results], np.bool_)
    return numbers[~defective], numbers[defective]


def _count_parts(results: Sequence[ScoredImage], group: str, threshold: Threshold | None) -> Confusion:
    """Return how parts are judged: a good one by the highest score of its images, a defective one by the lowest."""
    if threshold is None:
        return NOT_JUDGED
    good, defective = part_scores(results)
    of_good, of_defective = _group_results(results, group)
    highest = [good[of_good == part].max() for part in np.unique(of_good)]
    lowest = [defective[of_defective == part].min() for part in np.unique(of_defective)]
    return count_confusion(np.array(highest, np.float64), np.array(lowest, np.float64), threshold)


def evaluate_images(
    inspector: Inspector,
    model: ModelFile,
    images: Sequence[LabelledImage],
    *,
    source: str,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score labelled images and measure the model on them, at its threshold if it has one.

    source says where they are from. Raises DatasetError where not one image can be judged.
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
            f"none of the {len(images)} images can be judged, such as {str(faults[0].image.path)!r}: {faults[0].reason}"
        )
    good, defective = part_scores(results)
    calibration = model.info.calibration
    fingerprints = [result.fingerprint for result in results]
    confusion = NOT_JUDGED if threshold is None else count_confusion(good, defective, threshold)
    return Evaluation(
        model=model,
        threshold=threshold,
        source=source,
        time=now(),
        results=tuple(results),
        faults=tuple(faults),
        areas=measure_areas(good, defective),
        confusion=confusion,
        kinds=_measure_kinds(images, results, good, threshold),
        pixels=masks.measure(None if threshold is None else threshold.map),
        shown={kind: shown[kind] for kind in count_kinds([result.image for result in results])},
        trained_on=sum(fingerprint in model.training_images for fingerprint in fingerprints),
        calibrated_on=calibration is not None and calibration.images == fingerprint_set(fingerprints),
        of_training=compare_with_training(results, model),
        of_calibration=compare_with_calibration(results, model),
        test_split=compare_with_test_split([*fingerprints, *_fingerprint_faults(faults)], model),
        intervals=measure_area_intervals(good, defective)
        | measure_rates(confusion, banded=threshold is not None and threshold.review is not None),
        parts=confusion,
        repeats=tuple(repeats.paths),
    )


def _fingerprint_faults(faults: Sequence[Fault]) -> list[str]:
    found = fingerprint_images([fault.image for fault in faults])
    return [fingerprint for fingerprint in found if fingerprint is not None]


def _shows_region(observation: Observation, threshold: Threshold) -> bool:
    """Tell whether an image's verdict has a region."""
    verdict = decide(observation.scored.score, threshold)
    return bool(find_regions(observation.error_map, threshold, observation.width, observation.height, verdict))


def _measure_kinds(
    images: Sequence[LabelledImage],
    results: Sequence[ScoredImage],
    good: NDArray[np.float64],
    threshold: Threshold | None,
) -> dict[str, KindMetrics]:
    kinds = {}
    for kind in sorted({image.kind for image in images} - {GOOD}):
        scores = np.array([result.score for result in results if result.image.kind == kind], np.float64)
        counts = NOT_JUDGED if threshold is None else count_confusion(good[:0], scores, threshold)
        kinds[kind] = KindMetrics(
            measure_areas(good, scores),
            counts.true_ng,
            counts.false_ok,
            counts.review_defective,
            len(scores) - counts.defective,
        )
    return kinds


def _describe_confusion(confusion: Confusion) -> dict[str, Any]:
    shares = {rate.name: getattr(confusion, rate.name) for rate in RATES}
    reasons = [f"{rate.name}: {rate.cause}" for rate in RATES if shares[rate.name] is None]
    return asdict(confusion) | shares | {"reason": "; ".join(reasons) or None}
