"""Images that equal or resemble images of the training or of the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onspect.calibration.scores import SeenImage, fingerprint_images, fingerprint_pixels_of
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.dataset.near_duplicates import choose_limit, find_mirrored, find_near_duplicates, hash_look
from onspect.runtime.errors import DatasetError
from onspect.runtime.fingerprints import unpack_fingerprints
from onspect.runtime.model.file import ModelFile
from onspect.runtime.outliers import name_some
from onspect.runtime.progress import Progress, no_progress

_NAMED = 3


@dataclass(frozen=True)
class Overlap:
    """Images of a set that equal or resemble others."""

    same: tuple[Path, ...]
    """Paths of the images that equal one of the others, in order."""
    twins: tuple[Path, ...] | None
    """Paths of the images that only resemble one of the others, in order. None if they cannot be compared: the file is
    of an older release, or there are too few training images.
    """


def compare_with_training(found: Sequence[SeenImage], model: ModelFile) -> Overlap:
    """Return the images that equal or resemble images of the training.

    Parameters
    ----------
    found
        The images to compare.
    model
        The model file.

    Returns
    -------
    Overlap
        Paths of equal and of similar images.
    """
    known = None if model.looks is None else model.looks.hashes
    return _compare(found, model, model.training_images, known)


def compare_with_calibration(found: Sequence[SeenImage], model: ModelFile) -> Overlap:
    """Return the images that equal or resemble images that the file's threshold was chosen on.

    Parameters
    ----------
    found
        The images to compare.
    model
        The model file.

    Returns
    -------
    Overlap
        Paths of equal and of similar images.
    """
    calibration = model.info.calibration
    if calibration is None:
        return Overlap((), None)
    known = unpack_fingerprints(calibration.looks) if calibration.looks else None
    return _compare(found, model, frozenset(unpack_fingerprints(calibration.fingerprints)), known)


def compare_with_images(found: Sequence[SeenImage], others: Sequence[SeenImage], model: ModelFile) -> Overlap:
    """Return the images that equal or resemble other images.

    Parameters
    ----------
    found
        The images to compare.
    others
        The images to compare with.
    model
        The model file, with the features that similarity is measured by.

    Returns
    -------
    Overlap
        Paths of equal and of similar images.
    """
    fingerprints = frozenset(other.fingerprint for other in others)
    return _compare(found, model, fingerprints, [hash_look(other.look, model.looks) for other in others])


def _compare(
    found: Sequence[SeenImage], model: ModelFile, fingerprints: frozenset[str], hashes: Sequence[str] | None
) -> Overlap:
    same = [item.fingerprint in fingerprints for item in found]
    paths = [item.image.path for item in found]
    shared = tuple(path for path, is_same in zip(paths, same, strict=True) if is_same)
    if hashes is None or model.looks is None:
        return Overlap(shared, None)
    limit = choose_limit(model.looks.hashes)
    alike = find_near_duplicates([hash_look(item.look, model.looks) for item in found], hashes, limit)
    mirrored = find_mirrored([item.look for item in found], model.looks, hashes, limit)
    twins = zip(paths, same, alike, mirrored, strict=True)
    return Overlap(shared, tuple(path for path, is_same, *is_like in twins if any(is_like) and not is_same))


def describe_twins(twins: Sequence[Path] | None, total: int, whose: str, effect: str) -> list[str]:
    """Return a warning about images that resemble others.

    Parameters
    ----------
    twins
        Paths of the similar images; None if they are not known.
    total
        Number of images compared.
    whose
        Description of the others, such as ``images that the model was trained on``.
    effect
        Consequence for the result, as a clause.

    Returns
    -------
    list[str]
        One sentence; empty if there are no similar images.
    """
    if not twins:
        return []
    verb = "looks" if len(twins) == 1 else "look"
    return [f"{len(twins)} of {total} images {verb} almost like {whose}, such as {name_first(twins)}: {effect}"]


def name_first(paths: Sequence[Path]) -> str:
    """Return the first few paths as text.

    Parameters
    ----------
    paths
        Paths of files.

    Returns
    -------
    str
        At most three paths in quotes, separated by commas.
    """
    return ", ".join(repr(str(path)) for path in paths[:_NAMED])


def drop_repeats(images: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[Path]]:
    """Remove images with the same pixels as an earlier one.

    Parameters
    ----------
    images
        Labelled images.

    Returns
    -------
    tuple[list[LabelledImage], list[Path]]
        The images that are kept, and the paths of the others.

    Raises
    ------
    DatasetError
        If an image is both among the good and among the defective ones.
    """
    repeats = Repeats()
    kept = [
        image
        for image, fingerprint in zip(images, fingerprint_pixels_of(images), strict=True)
        if fingerprint is None or not repeats.is_repeat(image, fingerprint)
    ]
    return kept, repeats.paths


class Repeats:
    """Remembers images and recognizes those with the same pixels."""

    def __init__(self) -> None:
        self._first: dict[str, LabelledImage] = {}
        self.paths: list[Path] = []

    def is_repeat(self, image: LabelledImage, fingerprint: str) -> bool:
        """Return whether equal pixels came before, and remember these.

        Parameters
        ----------
        image
            A labelled image.
        fingerprint
            Fingerprint of its pixels.

        Returns
        -------
        bool
            Whether an earlier image has the same pixels.

        Raises
        ------
        DatasetError
            If one of them is good and the other defective.
        """
        first = self._first.setdefault(fingerprint, image)
        if first is image:
            return False
        if first.defective != image.defective:
            raise DatasetError(
                f"{str(first.path)!r} and {str(image.path)!r} are the same image, once as {first.kind!r} and once as "
                f"{image.kind!r}; remove the one that is wrong"
            )
        self.paths.append(image.path)
        return True


def describe_repeats(paths: Sequence[Path], total: int) -> list[str]:
    """Return a sentence about files that repeat another one.

    Parameters
    ----------
    paths
        The repeated files.
    total
        Number of all images.

    Returns
    -------
    list[str]
        One sentence; empty if there are no such files.
    """
    if not paths:
        return []
    verb = "repeats another file and counts" if len(paths) == 1 else "repeat other files and count"
    return [f"{len(paths)} of {total} images {verb} once, such as {name_some([str(path) for path in paths], 1)}"]


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
