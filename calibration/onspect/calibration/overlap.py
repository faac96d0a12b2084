"""Images that equal or resemble images of the training or of the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.dataset.near_duplicates import choose_limit, find_mirrored, find_near_duplicates, hash_look
from onspect.runtime.fingerprints import unpack_fingerprints
from onspect.runtime.model.file import ModelFile

_NAMED = 3


class KnownImage(Protocol):
    """Features by which an image is recognized."""

    @property
    def image(self) -> LabelledImage:
        """The labelled image."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its file."""

    @property
    def look(self) -> NDArray[np.float32] | None:
        """Features from `dct_features`, or None if the image has none."""


@dataclass(frozen=True)
class Overlap:
    """Images of a set that equal or resemble others."""

    same: tuple[Path, ...]
    """Paths of the images that equal one of the others, in order."""
    twins: tuple[Path, ...] | None
    """Paths of the images that only resemble one of the others, in order. None if they cannot be compared: the file is
    of an older release, or there are too few training images.
    """


def compare_with_training(found: Sequence[KnownImage], model: ModelFile) -> Overlap:
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


def compare_with_calibration(found: Sequence[KnownImage], model: ModelFile) -> Overlap:
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


def compare_with_images(found: Sequence[KnownImage], others: Sequence[KnownImage], model: ModelFile) -> Overlap:
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
    found: Sequence[KnownImage], model: ModelFile, fingerprints: frozenset[str], hashes: Sequence[str] | None
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
    return [f"{len(twins)} of {total} images {verb} almost like {whose}, such as {name_some(twins)}: {effect}"]


def name_some(paths: Sequence[Path]) -> str:
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
