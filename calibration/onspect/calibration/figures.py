"""Results of an evaluation: every figure, with its warnings, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onspect.calibration.fitness import Fitness, Requirement, find_blindness, find_targets, judge_fitness
from onspect.calibration.masks import PixelMetrics
from onspect.calibration.metrics.image import RATES, Areas, Confusion
from onspect.calibration.metrics.pixel import FPR_LIMIT
from onspect.calibration.overlap import Overlap, describe_repeats, describe_twins
from onspect.calibration.scores import Fault, ScoredImage, count_kinds, count_sides
from onspect.calibration.statistics.intervals import Interval
from onspect.calibration.statistics.support import Target
from onspect.calibration.test_split import SplitShare
from onspect.runtime.dataset.groups import says_parts
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import Threshold
from onspect.runtime.outliers import find_lone_scores, name_some

_NOTHING_MORE = Requirement()


@dataclass(frozen=True)
class KindMetrics:
    """Results for one kind of defect. With a group, parts are counted instead of images."""

    areas: Areas
    """Image metrics of its images against the good ones."""
    confusion: Confusion
    """Verdicts on its images alone; all are 0 without a threshold."""
    images: int
    """Number of its images or parts."""


@dataclass(frozen=True)
class Evaluation:
    """All results of an evaluation.

    With a group, `areas`, `confusion`, `kinds` and `intervals` count parts, each by its worst image (`part_scores`).
    """

    model: ModelFile
    """The model file that was measured."""
    threshold: Threshold | None
    """The file's threshold. None if the file has none: then no image is judged, and only figures without a threshold
    exist.
    """
    source: str
    """Origin of the images as text."""
    time: str
    """Time of the evaluation, ISO 8601."""
    results: tuple[ScoredImage, ...] = field(repr=False)
    """The scored images."""
    faults: tuple[Fault, ...]
    """The images that could not be scored."""
    areas: Areas
    """Metrics without a threshold."""
    confusion: Confusion
    """Number of images or parts by label and verdict; all 0 without a threshold."""
    kinds: dict[str, KindMetrics]
    """Results by kind of defect."""
    pixels: PixelMetrics
    """Metrics of the error maps against the masks."""
    shown: dict[str, int]
    """Number of images with a region, by kind."""
    trained_on: int
    """Number of scored images that the model was trained on."""
    calibrated_on: bool
    """Whether the scored images are exactly those that the threshold was chosen on."""
    of_training: Overlap
    """Images that equal or resemble images of the training."""
    of_calibration: Overlap
    """Images that equal or resemble images of the calibration."""
    test_split: SplitShare | None
    """Comparison of all images, with faults, with the test images that were held back at calibration; None if the file
    does not record them.
    """
    intervals: dict[str, Interval]
    """95% intervals of ``auroc``, ``aupr``, ``fpr`` and ``recall``, and with a review band of ``review`` and
    ``escapes``. Undefined ones are left out.
    """
    repeats: tuple[Path, ...] = ()
    """Files that equal an earlier one; they count once."""
    requirement: Requirement = _NOTHING_MORE
    """Rates that were required for this evaluation."""
    group: str | None = None
    """Pattern that tells which images show one part; None if each image shows its own part."""

    def __str__(self) -> str:
        from onspect.calibration.report.tables import describe_evaluation  # imports this module

        return describe_evaluation(self)

    @property
    def blindness(self) -> list[str]:
        """Reasons why the model is not useful on these images, one sentence each; usually empty."""
        return find_blindness(self.areas.auroc, self.intervals, self.confusion)

    @property
    def banded(self) -> bool:
        """Whether the threshold has a review band."""
        return self.threshold is not None and self.threshold.review is not None

    @property
    def targets(self) -> list[Target]:
        """Each required rate, with the rate of these images."""
        calibration = self.model.info.calibration
        return find_targets(calibration, self.confusion, banded=self.banded, requirement=self.requirement)

    @property
    def fitness(self) -> Fitness | None:
        """Whether the model is fit for use, according to these images; None without a threshold."""
        if self.threshold is None:
            return None
        doubts = [f"{self.trained_on} of the pictures were trained on"] if self.trained_on else []
        doubts += ["the threshold was chosen on these pictures"] if self.calibrated_on else []
        return judge_fitness(self.targets, self.confusion, self.blindness, doubts)

    def count_parts(self) -> tuple[int, int]:
        """Return the number of distinct parts that the images show.

        Returns
        -------
        tuple[int, int]
            Number of good and of defective parts.
        """
        return count_sides([result.image for result in self.results], self.group)

    def list_warnings(self) -> list[str]:
        """Return the reasons why the figures are better than they will be on the line, or incomplete.

        Returns
        -------
        list[str]
            One sentence for each reason.
        """
        warnings = [*self._describe_lone(), *describe_repeats(self.repeats, len(self.results) + len(self.repeats))]
        if self.trained_on:
            warnings.append(
                f"{self.trained_on} of {len(self.results)} images were trained on: "
                "these figures do not predict new parts; evaluate on images held out of training"
            )
        if self.calibrated_on:
            warnings.append(
                "the threshold was chosen on exactly these images: the confusion matrix is better than it will be on "
                "new parts; evaluate on other images"
            )
        shared = self.of_calibration.same
        if shared and not self.calibrated_on:
            warnings.append(
                f"{len(shared)} of {len(self.results)} images are among those that the threshold was chosen on, "
                f"such as {str(shared[0])!r}; evaluate on other images"
            )
        policy = "" if self.model.info.calibration is None else self.model.info.calibration.policy
        if self.group is None and says_parts(policy):
            warnings.append(
                "the threshold was chosen by parts with several images, and here each image counts as a part: give "
                "--group, so that the figures and their intervals count parts"
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
            effect = "if they show the same parts, the figures of new parts will be worse"
            warnings += describe_twins(overlap.twins, len(self.results), whose, effect)
        if self.faults:
            warnings.append(
                f"{len(self.faults)} of {len(self.results) + len(self.faults)} images could not be judged (fault), "
                "and only their own count includes them"
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
        """Return all figures as a JSON object.

        Returns
        -------
        dict[str, Any]
            An undefined figure is null, with its reason beside it.
        """
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
            "counted": f"{self.confusion.noun}s",
            "confusion": _describe_confusion(self.confusion),
            "kinds": {
                kind: {"images": metrics.images, "caught": metrics.confusion.true_ng}
                | {"missed": metrics.confusion.false_ok, "reviewed": metrics.confusion.review_defective}
                | {"recall": metrics.confusion.recall}
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


def _describe_confusion(confusion: Confusion) -> dict[str, Any]:
    shares = {rate.name: getattr(confusion, rate.name) for rate in RATES}
    reasons = [f"{rate.name}: {rate.cause}" for rate in RATES if shares[rate.name] is None]
    return confusion.counts | shares | {"reason": "; ".join(reasons) or None}
