"""What an evaluation measured: every figure, with its warnings, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onspect.calibration.blindness import find_blindness
from onspect.calibration.fitness import Fitness, Requirement, find_targets, judge_fitness
from onspect.calibration.masks import PixelMetrics
from onspect.calibration.metrics.image import RATES, Areas, Confusion
from onspect.calibration.metrics.pixel import FPR_LIMIT
from onspect.calibration.overlap import Overlap, describe_twins
from onspect.calibration.repeats import describe_repeats
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
    """How one kind of defect fares: areas against all good images, and how many were caught (ng) and missed (ok).

    With a group all of this counts parts.

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
    areas, confusion, kinds, intervals: with a group of parts, each by its worst image (`part_scores`); else of images.
    source: description of the images' origin. results: the scored images; faults: the others. shown: how
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
        return find_targets(calibration, self.confusion, banded=self.banded, requirement=self.requirement)

    @property
    def fitness(self) -> Fitness | None:
        """Whether the model is fit for use, by these parts; None without a threshold."""
        if self.threshold is None:
            return None
        doubts = [f"{self.trained_on} of the pictures were trained on"] if self.trained_on else []
        doubts += ["the threshold was chosen on these pictures"] if self.calibrated_on else []
        return judge_fitness(self.targets, self.confusion, self.blindness, doubts)

    def count_parts(self) -> tuple[int, int]:
        """Return how many distinct good and defective parts the images show."""
        return count_sides([result.image for result in self.results], self.group)

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
            "counted": f"{self.confusion.noun}s",
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


def _describe_confusion(confusion: Confusion) -> dict[str, Any]:
    shares = {rate.name: getattr(confusion, rate.name) for rate in RATES}
    reasons = [f"{rate.name}: {rate.cause}" for rate in RATES if shares[rate.name] is None]
    counts = {name: value for name, value in asdict(confusion).items() if name != "noun"}
    return counts | shares | {"reason": "; ".join(reasons) or None}
