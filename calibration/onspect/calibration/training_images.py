"""Labelled images that the model was trained on: refused, left out or allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from onspect.calibration.scores import fingerprint_images
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import DatasetError
from onspect.runtime.model.file import ModelFile
from onspect.runtime.progress import Progress, no_progress

TrainingImages = Literal["refuse", "skip", "allow"]
"""What to do with images that the model was trained on."""


def select_images(
    images: Sequence[LabelledImage], file: ModelFile, training: TrainingImages, progress: Progress = no_progress
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
    cure = "--allow-training-images uses them anyway"
    if others:
        cure = f"--skip-training-images calibrates on the other {others}, {cure}"
    return (
        f"{len(trained_on)} of {len(images)} images were trained on, such as {str(trained_on[0].path)!r}: their scores "
        f"are lower than new parts' will be, and so would the threshold be; {cure}"
    )
