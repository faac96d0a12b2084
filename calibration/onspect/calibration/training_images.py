"""Labelled images that the model was trained on: refuse, leave out or allow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from onspect.calibration.scores import fingerprint_images
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import DatasetError
from onspect.runtime.model.file import ModelFile
from onspect.runtime.progress import Progress, no_progress

TrainingImages = Literal["refuse", "skip", "allow"]
"""Treatment of images that the model was trained on."""


def select_images(
    images: Sequence[LabelledImage], file: ModelFile, training: TrainingImages, progress: Progress = no_progress
) -> tuple[list[LabelledImage], int]:
    """Return the images to calibrate on.

    A file that was trained on more images than it records has their smallest fingerprints. With ``skip``, an image with
    a fingerprint above the highest of those is left out too, because the file cannot rule it out.

    Parameters
    ----------
    images
        Labelled images.
    file
        The model file.
    training
        ``refuse``, ``skip`` or ``allow``.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    tuple[list[LabelledImage], int]
        The images, and the number of them that the model was trained on (0 unless allowed).

    Raises
    ------
    DatasetError
        If training images are refused and there are some, or if no image remains without them.
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
        f"are lower than those of new parts, and the threshold would be too low; {cure}"
    )
