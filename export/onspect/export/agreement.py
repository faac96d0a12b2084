"""The gate on decisions: the same labelled images, each file with a threshold chosen from its own scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.review import Band
from onspect.calibration.scores import Fault, find_images, score_images
from onspect.calibration.thresholds import Policy, default_policy
from onspect.calibration.training_images import select_images
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import DatasetError, ExportError, UncalibratedError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.model.file import ModelFile
from onspect.runtime.model.schema import Agreement, Threshold

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """What another file is held against: labelled images with scores, and what makes a threshold of those.

    label: what gave the scores. scores: float64 [n], in the images' order. policy, band: how cut and review band are
    chosen. threshold: what they make of the scores.
    """

    label: str
    images: tuple[LabelledImage, ...]
    scores: Scores
    policy: Policy
    band: Band | None
    threshold: Threshold

    def describe_policy(self) -> str:
        """Return in words how cut and review band are chosen."""
        return self.policy.describe() + (f"; {self.band.describe()}" if self.band else "")


def allowed_flips(images: int, precision: str, wanted: int | None) -> int:
    """Return how many verdicts may flip: what was asked for, else none in float32 and 0.2% of the images otherwise."""
    if wanted is not None:
        return wanted
    return 0 if precision == "fp32" else images // 500


def make_reference(
    label: str, images: Sequence[LabelledImage], scores: Scores, policy: Policy | None, band: Band | None = None
) -> Reference:
    """Return the reference that scores of images make, by a policy or the default one, and a review band.

    Raises DatasetError where the images do not do for the policy.
    """
    policy = policy or default_policy(sum(image.defective for image in images))
    return Reference(label, tuple(images), scores, policy, band, _choose(policy, band, images, scores))


def find_reference(file: ModelFile, data: Path) -> Reference:
    """Score the images that a file was calibrated on, DATA/val, and return them as the reference, by its own policy.

    A file without a threshold takes the default policy. Raises DatasetError where images cannot be scored, or are not
    those that the threshold was chosen on; UncalibratedError where an older release chose it and left no policy.
    """
    calibration = file.info.calibration
    if file.info.threshold is not None and (calibration is None or calibration.rule is None):
        raise UncalibratedError(
            f"{str(file.path)!r} does not say how its threshold was chosen: run 'onspect calibrate {file.path} DATA'"
        )
    rule, review_rule = (calibration.rule, calibration.review_rule) if calibration else (None, None)
    policy, band = Policy.from_rule(rule) if rule else None, Band.from_rule(review_rule) if review_rule else None
    found = find_images(data, "val")
    images, _ = select_images(found, file, "allow" if calibration and calibration.training_images else "skip")
    inspector = Inspector(file, provider="cpu")
    scores, fingerprints = [], []
    for image, observation in zip(images, score_images(inspector, images), strict=True):
        if isinstance(observation, Fault):
            raise DatasetError(f"cannot compare on {str(image.path)!r}: {observation.reason}; remove or replace it")
        scores.append(observation.scored.score)
        fingerprints.append(observation.scored.fingerprint)
    if calibration is not None and fingerprint_set(fingerprints) != calibration.images:
        raise DatasetError(
            f"the {len(images)} images of {str(data)!r} are not the {sum(calibration.counts.values())} of "
            f"{calibration.data!r} that the threshold of {str(file.path)!r} was chosen on: give those, or run "
            f"'onspect calibrate {file.path} {data}' first"
        )
    return make_reference(inspector.label, images, np.array(scores), policy, band)


def score_like(reference: Reference, file: ModelFile, graph: bytes) -> Scores:
    """Return another graph's scores of the reference's images, NaN where it gives none."""
    inspector = Inspector(dataclasses.replace(file, data=graph), provider="cpu")
    found = score_images(inspector, reference.images)
    return np.array([np.nan if isinstance(item, Fault) else item.scored.score for item in found])


def compare(reference: Reference, scores: Scores) -> Agreement:
    """Hold scores of the reference's images against the reference's, each by its own threshold.

    Scores that are not finite, or of which no threshold can be made, count as if every verdict had flipped.
    """
    count, policy = len(scores), reference.describe_policy()
    own = None
    if np.isfinite(scores).all():
        with suppress(DatasetError):  # of one score for all images no threshold can be made
            own = _choose(reference.policy, reference.band, reference.images, scores)
    if own is None:
        return Agreement(reference.label, policy, count, flips=count, carried=count, shift=1.0)
    return compare_thresholds(reference, scores, own)


def compare_thresholds(reference: Reference, scores: Scores, own: Threshold, policy: str | None = None) -> Agreement:
    """Hold finite scores of the reference's images against the reference's, with a threshold of their own.

    policy: how both thresholds were chosen, in words; the reference's without.
    """
    before = _judge(reference.scores, reference.threshold)
    spread = float(reference.scores.std()) or 1.0
    return Agreement(
        reference=reference.label,
        policy=policy or reference.describe_policy(),
        images=len(scores),
        flips=_count_differences(before, _judge(scores, own)),
        carried=_count_differences(before, _judge(scores, reference.threshold)),
        shift=float(np.sqrt(np.mean((scores - reference.scores) ** 2))) / spread,
    )


def refuse_flips(agreement: Agreement, allowed: int) -> None:
    """Raise ExportError where more verdicts flipped than are allowed."""
    if agreement.flips > allowed:
        raise describe_flips(agreement, allowed)


def describe_flips(agreement: Agreement, allowed: int) -> ExportError:
    """Return the error that says how many verdicts flipped, how many were allowed, and what to do."""
    cure = f"keep float32, or allow them with --max-flips {agreement.flips}"
    if agreement.carried <= allowed:
        cure = (
            f"with the old threshold only {agreement.carried} would differ, so the cause is the new threshold, not "
            f"the scores: {cure}"
        )
    return ExportError(
        f"{agreement.flips} of {agreement.images} verdicts differ from those of {agreement.reference} after "
        f"recalibration ({agreement.policy}), and {allowed} are allowed: nothing was written; {cure}"
    )


def _choose(policy: Policy, band: Band | None, images: Sequence[LabelledImage], scores: Scores) -> Threshold:
    is_defective = np.array([image.defective for image in images], bool)
    good, defective = scores[~is_defective], scores[is_defective]
    cut = policy.choose(good, defective)
    if band is None:
        return Threshold(cut, cut)
    return Threshold(cut, cut, band.choose(good, defective, cut, policy.interval(good, defective)))


def _judge(scores: Scores, threshold: Threshold) -> list[str]:
    return [decide(float(score), threshold) for score in scores]


def _count_differences(first: list[str], second: list[str]) -> int:
    return sum(one != other for one, other in zip(first, second, strict=True))
