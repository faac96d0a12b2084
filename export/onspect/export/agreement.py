"""The check of decisions: two files judge the same labelled images, each with a threshold from its own scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.calibration.overlap import select_images
from onspect.calibration.review import Band
from onspect.calibration.scores import Fault, find_images, score_images
from onspect.calibration.thresholds import Policy, default_policy
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
    """Labelled images and scores that another file is compared with, and how their threshold was chosen."""

    label: str
    """Name of the file or model that gave the scores."""
    images: tuple[LabelledImage, ...]
    """The labelled images."""
    scores: Scores
    """float64 [n], in the order of the images."""
    policy: Policy
    """How the threshold is chosen."""
    band: Band | None
    """How the review band is chosen; None for no band."""
    threshold: Threshold
    """The threshold that policy and band choose from the scores."""

    def describe_policy(self) -> str:
        """Return a description of policy and review band.

        Returns
        -------
        str
            One phrase.
        """
        return self.policy.describe() + (f"; {self.band.describe()}" if self.band else "")


def allowed_flips(images: int, precision: str, wanted: int | None) -> int:
    """Return the number of verdicts that may differ.

    Parameters
    ----------
    images
        Number of compared images.
    precision
        ``fp32``, ``fp16`` or ``int8``.
    wanted
        The user's limit; None for 0 in float32, and otherwise 0.2% of the images, rounded down.

    Returns
    -------
    int
        The limit, 0 or more.
    """
    if wanted is not None:
        return wanted
    return 0 if precision == "fp32" else images // 500


def make_reference(
    label: str, images: Sequence[LabelledImage], scores: Scores, policy: Policy | None, band: Band | None = None
) -> Reference:
    """Return the reference for scores of labelled images.

    Parameters
    ----------
    label
        Name of the file or model that gave the scores.
    images
        The labelled images.
    scores
        float64 [n], in the order of the images.
    policy
        How the threshold is chosen; None for the default policy.
    band
        How the review band is chosen; None for no band.

    Returns
    -------
    Reference
        The reference, with its threshold.

    Raises
    ------
    DatasetError
        If the policy cannot choose a threshold from these images.
    """
    policy = policy or default_policy(sum(image.defective for image in images))
    return Reference(label, tuple(images), scores, policy, band, _choose(policy, band, images, scores))


def find_reference(file: ModelFile, data: Path) -> Reference:
    """Score the images that a file was calibrated on, and return the reference by the file's own policy.

    Parameters
    ----------
    file
        The model file. Without a threshold, the default policy is used.
    data
        The dataset folder; its ``val`` has the images.

    Returns
    -------
    Reference
        The images with the file's scores.

    Raises
    ------
    DatasetError
        If an image cannot be scored, or the images are not those of the calibration.
    UncalibratedError
        If the file does not record how its threshold was chosen.
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
    """Return another graph's scores of the reference's images.

    Parameters
    ----------
    reference
        The labelled images.
    file
        Model file that gives preprocessing and metadata.
    graph
        The graph to score with, as bytes of an ONNX file.

    Returns
    -------
    Scores
        float64 [n], in the order of the images; NaN for an image without a score.
    """
    inspector = Inspector(dataclasses.replace(file, data=graph), provider="cpu")
    found = score_images(inspector, reference.images)
    return np.array([np.nan if isinstance(item, Fault) else item.scored.score for item in found])


def compare(reference: Reference, scores: Scores) -> Agreement:
    """Compare verdicts, each score with its own threshold.

    If a score is not finite, or no threshold can be chosen, all verdicts count as different.

    Parameters
    ----------
    reference
        The labelled images with their scores.
    scores
        float64 [n], scores of another file for the same images.

    Returns
    -------
    Agreement
        Number of different verdicts, with a new threshold and with the old one.
    """
    count, policy = len(scores), reference.describe_policy()
    own = None
    if np.isfinite(scores).all():
        with suppress(DatasetError):  # equal scores for all images give no threshold
            own = _choose(reference.policy, reference.band, reference.images, scores)
    if own is None:
        return Agreement(reference.label, policy, count, flips=count, carried=count, shift=1.0)
    return compare_thresholds(reference, scores, own)


def compare_thresholds(reference: Reference, scores: Scores, own: Threshold, policy: str | None = None) -> Agreement:
    """Compare verdicts for scores that have a threshold already.

    Parameters
    ----------
    reference
        The labelled images with their scores.
    scores
        float64 [n], finite, scores of another file for the same images.
    own
        Threshold of these scores.
    policy
        Text on the choice of both thresholds; None for the reference's policy.

    Returns
    -------
    Agreement
        Number of different verdicts, with `own` and with the reference's threshold.
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


def describe_flips(agreement: Agreement, allowed: int) -> ExportError:
    """Return the error for too many different verdicts, with both numbers and a remedy.

    Parameters
    ----------
    agreement
        Result of the comparison.
    allowed
        Number of verdicts that may differ, 0 or more.

    Returns
    -------
    ExportError
        The error, not raised.
    """
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
