"""Images that are, or look almost like, those that the model was trained on, its threshold chosen on."""

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
    """What an image is known again by: the fingerprint of its file, and its look (`dct_features`)."""

    @property
    def image(self) -> LabelledImage:
        """Where it lies, and what is known of it."""

    @property
    def fingerprint(self) -> str:
        """Of its file."""

    @property
    def look(self) -> NDArray[np.float32] | None:
        """None where it has none."""


@dataclass(frozen=True)
class Overlap:
    """What a set of images shares with others, and what only looks almost like one of those; paths, in order.

    twins is None where there is nothing to compare with: an older release, or too few training images.
    """

    same: tuple[Path, ...]
    twins: tuple[Path, ...] | None


def compare_with_training(found: Sequence[KnownImage], model: ModelFile) -> Overlap:
    """Return what images share with those that the model was trained on."""
    known = None if model.looks is None else model.looks.hashes
    return _compare(found, model, model.training_images, known)


def compare_with_calibration(found: Sequence[KnownImage], model: ModelFile) -> Overlap:
    """Return what images share with those that the file's threshold was chosen on."""
    calibration = model.info.calibration
    if calibration is None:
        return Overlap((), None)
    known = unpack_fingerprints(calibration.looks) if calibration.looks else None
    return _compare(found, model, frozenset(unpack_fingerprints(calibration.fingerprints)), known)


def compare_with_images(found: Sequence[KnownImage], others: Sequence[KnownImage], model: ModelFile) -> Overlap:
    """Return what images share with other ones."""
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
    """Return a sentence about images that look almost like others, none where there are none."""
    if not twins:
        return []
    verb = "looks" if len(twins) == 1 else "look"
    return [f"{len(twins)} of {total} images {verb} almost like {whose}, such as {name_some(twins)}: {effect}"]


def name_some(paths: Sequence[Path]) -> str:
    """Return the paths of the first few files, in quotes."""
    return ", ".join(repr(str(path)) for path in paths[:_NAMED])
