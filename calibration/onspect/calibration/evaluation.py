"""Evaluation: every figure that says how a calibrated model does on labelled images it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.blindness import find_blindness
from onspect.calibration.masks import MaskReader, PixelMetrics
from onspect.calibration.metrics.image import Areas, Confusion, count_confusion, measure_areas
from onspect.calibration.metrics.pixel import FPR_LIMIT
from onspect.calibration.overlap import Overlap, compare_with_calibration, compare_with_training, describe_twins
from onspect.calibration.repeats import Repeats, describe_repeats
from onspect.calibration.scores import (
    Fault,
    Observation,
    ScoredImage,
    count_kinds,
    fingerprint_images,
    part_scores,
    score_images,
)
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.statistics.support import measure_area_intervals, measure_rates
from onspect.calibration.test_split import HeldBackShare, compare_with_held_back
from onspect.runtime.cli.base import progress
from onspect.runtime.dataset.folder import GOOD, LabelledImage
from onspect.runtime.errors import DatasetError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.regions import find_regions
from onspect.runtime.inspection.verdict import decide, now
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import Threshold
from onspect.runtime.outliers import find_lone_scores, name_some


@dataclass(frozen=True)
class KindMetrics:
    """How one kind of defect fares: areas against all good images, and how many were caught (ng) and missed (ok).

    reviewed: how many were sent to a person.
    """

    areas: Areas
    caught: int
    missed: int
    reviewed: int = 0

    @property
    def images(self) -> int:
        """How many images of the kind were scored."""
        return self.caught + self.missed + self.reviewed

    @property
    def recall(self) -> float | None:
        """The share that was caught, None where no image of the kind could be scored."""
        return self.caught / self.images if self.images else None


@dataclass(frozen=True)
class Evaluation:
    """All that was measured.

    source: where the images came from, in words. results: the scored images; faults: the others.
    shown: how many images of each kind have a region. trained_on: images (of results) that the model was trained on.
    calibrated_on: whether these are the very images that the threshold was chosen on. of_training, of_calibration: what
    they share with those others. held_back: how all images, faults too, compare with the test images that stood beside
    the calibration's; None where the file does not say. intervals: 95% intervals of ``auroc``, ``aupr``, ``fpr`` and
    ``recall``, with a review band of ``review`` and ``escapes`` too, those of them that could be had. repeats: files
    that equal an earlier one; they count once.
    """

    model: ModelFile
    threshold: Threshold
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
    held_back: HeldBackShare | None
    intervals: dict[str, Interval]
    repeats: tuple[Path, ...] = ()

    @property
    def blindness(self) -> list[str]:
        """Why the model is of no use on these images, one sentence each; mostly none."""
        return find_blindness(self.areas.auroc, self.intervals, self.confusion)

    def list_warnings(self) -> list[str]:
        """Return what makes the figures better than they will be on the line, or incomplete; one sentence each."""
        warnings = [*self._describe_lone(), *describe_repeats(self.repeats, len(self.results) + len(self.repeats))]
        if self.trained_on:
            warnings.append(
                f"{self.trained_on} of {len(self.results)} images were trained on: "
                "these figures say nothing about new parts; evaluate on images held out of training"
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
        held_back = self.held_back
        if held_back is not None and 0 < held_back.here < held_back.held_back:
            warnings.append(
                f"{held_back.held_back - held_back.here} of the {held_back.held_back} test images that were held back "
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
        verb = "stands" if len(lone) == 1 else "stand"
        scores = ", ".join(f"{good[place].score:.6g}" for place in lone[:3])
        return [f"{len(lone)} of {len(good)} good images {verb} alone with a score of {scores}: check {names}"]

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
            if self.held_back is None
            else asdict(self.held_back) | {"same": self.held_back.same, "words": self.held_back.describe()},
            "threshold": asdict(self.threshold)
            | {
                "policy": info.calibration.policy if info.calibration else None,
                "interval": info.calibration.intervals.get("threshold") if info.calibration else None,
            },
            "image": asdict(self.areas),
            "intervals": self.intervals,
            "confusion": _describe_confusion(self.confusion),
            "kinds": {
                kind: {"images": metrics.images, "caught": metrics.caught, "missed": metrics.missed}
                | {"reviewed": metrics.reviewed, "recall": metrics.recall}
                | asdict(metrics.areas)
                for kind, metrics in self.kinds.items()
            },
            "pixel": asdict(self.pixels.areas)
            | {"fpr_limit": FPR_LIMIT, "images_with_mask": self.pixels.with_mask}
            | {"images_without_mask": self.pixels.without_mask, "images_with_empty_mask": self.pixels.empty_masks}
            | {"unreadable_masks": list(self.pixels.unreadable_masks), "good_images": self.pixels.good_images}
            | {"at_map_threshold": None if self.pixels.point is None else asdict(self.pixels.point)},
            "images_with_regions": self.shown,
        }


def evaluate(inspector: Inspector, model: ModelFile, images: Sequence[LabelledImage], *, source: str) -> Evaluation:
    """Score labelled images and measure the model on them, at its stamped threshold.

    Raises UncalibratedError where the model has no threshold, DatasetError where not one image can be judged.
    """
    threshold = inspector.threshold
    masks = MaskReader(wanted=any(image.mask for image in images))
    results: list[ScoredImage] = []
    faults: list[Fault] = []
    shown: Counter[str] = Counter()
    repeats = Repeats()
    for observation in progress(score_images(inspector, images), len(images), "scoring"):
        if isinstance(observation, Fault):
            faults.append(observation)
        elif not repeats.is_repeat(observation.scored.image, observation.scored.fingerprint):
            results.append(observation.scored)
            masks.add(observation)
            shown[observation.scored.image.kind] += _shows_region(observation, threshold)
    if not results:
        raise DatasetError(
            f"none of the {len(images)} images can be judged, such as {str(faults[0].image.path)!r}: {faults[0].reason}"
        )
    good, defective = part_scores(results)
    calibration = model.info.calibration
    fingerprints = [result.fingerprint for result in results]
    confusion = count_confusion(good, defective, threshold)
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
        pixels=masks.measure(threshold.map),
        shown={kind: shown[kind] for kind in count_kinds([result.image for result in results])},
        trained_on=sum(fingerprint in model.training_images for fingerprint in fingerprints),
        calibrated_on=calibration is not None and calibration.images == fingerprint_set(fingerprints),
        of_training=compare_with_training(results, model),
        of_calibration=compare_with_calibration(results, model),
        held_back=compare_with_held_back([*fingerprints, *_fingerprint_faults(faults)], model),
        intervals=measure_area_intervals(good, defective)
        | measure_rates(confusion, banded=threshold.review is not None),
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
    images: Sequence[LabelledImage], results: Sequence[ScoredImage], good: NDArray[np.float64], threshold: Threshold
) -> dict[str, KindMetrics]:
    kinds = {}
    for kind in sorted({image.kind for image in images} - {GOOD}):
        scores = np.array([result.score for result in results if result.image.kind == kind], np.float64)
        counts = count_confusion(good[:0], scores, threshold)
        kinds[kind] = KindMetrics(measure_areas(good, scores), counts.true_ng, counts.false_ok, counts.review_defective)
    return kinds


def _describe_confusion(confusion: Confusion) -> dict[str, Any]:
    causes = {
        "recall": "there are no defective images",
        "escapes": "there are no defective images",
        "fpr": "there are no good images",
        "precision": "no image was rejected",
        "f1": "no image is defective or was rejected",
    }
    shares = {name: getattr(confusion, name) for name in causes}
    reasons = [f"{name}: {cause}" for name, cause in causes.items() if shares[name] is None]
    return asdict(confusion) | shares | {"reason": "; ".join(reasons) or None}
