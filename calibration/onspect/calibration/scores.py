"""Scores of labelled images from the deployed runtime, on all cores, in order, with bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.dataset.folder import GOOD, LabelledImage, has_split, labelled_images
from onspect.runtime.dataset.groups import group_names
from onspect.runtime.dataset.near_duplicates import dct_features
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.fingerprints import fingerprint_bytes, fingerprint_pixels
from onspect.runtime.images.decode import decode_image, read_file
from onspect.runtime.images.placement import Placement
from onspect.runtime.inspection.batch import BATCH, batched, in_order
from onspect.runtime.inspection.inspector import Inspector, Prepared

_SPLITS = ("val", "test")


@dataclass(frozen=True)
class SeenImage:
    """A labelled image that was read."""

    image: LabelledImage
    """The labelled image."""
    fingerprint: str
    """Fingerprint of its file."""
    look: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """Features from `dct_features`; None if it has none, or the file cannot be decoded."""
    pixels: str = ""
    """Fingerprint of its pixels; empty if the file cannot be decoded."""


@dataclass(frozen=True)
class ScoredImage(SeenImage):
    """A labelled image with its score."""

    score: float = field(kw_only=True)
    """Finite score; higher is worse."""


@dataclass(frozen=True)
class Fault:
    """A labelled image that could not be scored."""

    image: LabelledImage
    """The labelled image."""
    reason: str
    """Reason as text."""
    by_model: bool = False
    """Whether the image can be read and the model's score is not valid."""


@dataclass(frozen=True)
class Observation:
    """A scored image with its error map."""

    scored: ScoredImage
    """The image and its score."""
    error_map: NDArray[np.float32] = field(repr=False, compare=False)
    """float32 [h, w] at the model's working size, 0 or more."""
    height: int
    """Height of the image in pixels."""
    width: int
    """Width of the image in pixels."""
    placement: Placement | None = field(default=None, repr=False, compare=False)
    """Position of the error map in the image; None if the map covers the whole image."""

    def map_in_image(self) -> NDArray[np.float32]:
        """Return the error map of the whole image.

        Returns
        -------
        NDArray[np.float32]
            float32 [H, W], at any size; 0 outside the model's region.
        """
        return self.error_map if self.placement is None else self.placement.map_in_frame(self.error_map)


def find_images(folder: Path, split: str) -> list[LabelledImage]:
    """Return the labelled images of a dataset's split.

    The other split is never used instead: that would calibrate on test images, or evaluate on those of the calibration.

    Parameters
    ----------
    folder
        A dataset folder.
    split
        ``val`` or ``test``.

    Returns
    -------
    list[LabelledImage]
        The images, as `labelled_images` returns them.

    Raises
    ------
    DatasetError
        If there are no images, or the folder has the other split only.
    """
    other = next(name for name in _SPLITS if name != split)
    if folder.is_dir() and not has_split(folder, split) and has_split(folder, other):
        raise DatasetError(
            f"{str(folder)!r} has no folder {split!r}, and it has {other!r}: use --split {other}, "
            f"or put labelled images into {str(folder / split)!r}"
        )
    return labelled_images(folder, split)


def name_source(folder: Path, split: str) -> str:
    """Return a description of the origin of images.

    Parameters
    ----------
    folder
        A dataset folder.
    split
        ``val`` or ``test``.

    Returns
    -------
    str
        Name of the folder, and the split if the folder has splits.
    """
    name = folder.resolve().name
    return f"{name}, split {split}" if has_split(folder, split) else f"{name} (it has no splits)"


def count_kinds(images: Sequence[LabelledImage], group: str | None = None) -> dict[str, int]:
    """Return the number of parts of each kind.

    Parameters
    ----------
    images
        Labelled images.
    group
        Regular expression for file names: images with the same match show one part. None: each image shows its own
        part.

    Returns
    -------
    dict[str, int]
        Number by kind, ``good`` first, then the defects by name.
    """
    numbers = group_names([image.path for image in images], group).tolist()
    kinds = [kind for kind, _ in {(image.kind, number) for image, number in zip(images, numbers, strict=True)}]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (kind != GOOD, kind))}


def count_sides(images: Sequence[LabelledImage], group: str | None) -> tuple[int, int]:
    """Return the number of good and of defective parts that images show.

    Parameters
    ----------
    images
        Labelled images.
    group
        Regular expression for file names: images with the same match show one part. None: each image shows its own
        part.

    Returns
    -------
    tuple[int, int]
        Number of good and of defective parts.
    """
    sides = [[image.path for image in images if image.defective == defective] for defective in (False, True)]
    good, defective = (len(np.unique(group_names(paths, group))) for paths in sides)
    return good, defective


def list_parts(results: Sequence[ScoredImage], group: str | None) -> list[list[ScoredImage]]:
    """Return the images of each part.

    Parameters
    ----------
    results
        Scored images.
    group
        Regular expression for file names: images with the same match show one part. None: each image shows its own
        part.

    Returns
    -------
    list[list[ScoredImage]]
        One list for each part, in the order of their first images.
    """
    numbers = group_names([result.image.path for result in results], group).tolist()
    parts: dict[int, list[ScoredImage]] = {}
    for number, result in zip(numbers, results, strict=True):
        parts.setdefault(number, []).append(result)
    return list(parts.values())


def list_worst(results: Sequence[ScoredImage], group: str | None) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """Return the worst image of each part.

    A part with good and defective images counts as one of each.

    Parameters
    ----------
    results
        Scored images.
    group
        Regular expression for file names: images with the same match show one part. None: each image shows its own
        part.

    Returns
    -------
    tuple[list[ScoredImage], list[ScoredImage]]
        The image with the highest score of each good part, and that with the lowest score of each defective part.
    """
    good = [result for result in results if not result.image.defective]
    defective = [result for result in results if result.image.defective]
    return (
        [max(images, key=lambda result: result.score) for images in list_parts(good, group)],
        [min(images, key=lambda result: result.score) for images in list_parts(defective, group)],
    )


def part_scores(
    results: Sequence[ScoredImage], group: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of good and of defective parts. A part has the score of its worst image.

    Parameters
    ----------
    results
        Scored images.
    group
        Regular expression for file names: images with the same match show one part. None: each image shows its own
        part.

    Returns
    -------
    tuple[NDArray[np.float64], NDArray[np.float64]]
        Scores of the good parts, float64 [n], and of the defective parts, float64 [m].
    """
    good, defective = ([result.score for result in worst] for worst in list_worst(results, group))
    return np.array(good, np.float64), np.array(defective, np.float64)


def fingerprint_images(images: Sequence[LabelledImage]) -> Iterator[str | None]:
    """Return the fingerprints of the images' files.

    Parameters
    ----------
    images
        Labelled images.

    Returns
    -------
    Iterator[str | None]
        One for each image, in order; None if the file cannot be read.
    """
    return in_order(fingerprint_or_none, [image.path for image in images])


def fingerprint_pixels_of(images: Sequence[LabelledImage]) -> Iterator[str | None]:
    """Return the fingerprints of the images' pixels.

    Parameters
    ----------
    images
        Labelled images.

    Returns
    -------
    Iterator[str | None]
        One for each image, in order; None if the file cannot be decoded.
    """

    def find(image: LabelledImage) -> str | None:
        try:
            return fingerprint_pixels(decode_image(read_file(image.path)))
        except ImageError:
            return None

    return in_order(find, images)


def see_images(inspector: Inspector, images: Sequence[LabelledImage]) -> Iterator[SeenImage | None]:
    """Read images on all cores without scoring them.

    Parameters
    ----------
    inspector
        The model, ready to run.
    images
        Labelled images.

    Returns
    -------
    Iterator[SeenImage | None]
        One for each image, in order; None if the file cannot be read.
    """

    def see(image: LabelledImage) -> SeenImage | None:
        try:
            data = read_file(image.path)
        except ImageError:
            return None
        fingerprint = fingerprint_bytes(data)
        try:
            frame = decode_image(data)
            return SeenImage(image, fingerprint, dct_features(inspector.prepare(frame)), fingerprint_pixels(frame))
        except ImageError:
            return SeenImage(image, fingerprint)

    return in_order(see, images)


def score_images(inspector: Inspector, images: Sequence[LabelledImage]) -> Iterator[Observation | Fault]:
    """Score images on all cores.

    Parameters
    ----------
    inspector
        The model, ready to run.
    images
        Labelled images.

    Returns
    -------
    Iterator[Observation | Fault]
        One for each image, in order; a `Fault` if it cannot be read, or its score is not a number.
    """

    def score(batch: tuple[LabelledImage, ...]) -> list[Observation | Fault]:
        return _score_batch(inspector, batch)

    return itertools.chain.from_iterable(in_order(score, batched(images, BATCH)))


def _score_batch(inspector: Inspector, batch: Sequence[LabelledImage]) -> list[Observation | Fault]:
    opened = [_open_image(inspector, image) for image in batch]
    scored = inspector.infer_frames([item for item, _ in opened])
    rows = iter(()) if scored is None else zip(scored.score.tolist(), scored.error_map, scored.faults(), strict=True)
    found: list[Observation | Fault] = []
    for image, (item, (fingerprint, pixels)) in zip(batch, opened, strict=True):
        if item.image is None:
            found.append(Fault(image, str(item.error)))
            continue
        score, error_map, fault = next(rows)
        if fault is not None:
            found.append(Fault(image, fault, by_model=True))
            continue
        known = ScoredImage(image, fingerprint, dct_features(item.image), pixels, score=score)
        found.append(Observation(known, error_map, item.height, item.width, item.placement))
    return found


def _open_image(inspector: Inspector, image: LabelledImage) -> tuple[Prepared, tuple[str, str]]:
    """Return an image's model input, or the error, and the fingerprints of its file and its pixels."""
    try:
        data = read_file(image.path)
        frame = decode_image(data, inspector.accepts)
    except ImageError as error:
        return inspector.prepare_frame(error), ("", "")
    return inspector.prepare_frame(frame, keep=False), (fingerprint_bytes(data), fingerprint_pixels(frame))


def fingerprint_or_none(path: Path) -> str | None:
    """Return the fingerprint of an image's file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    str | None
        The fingerprint; None if the file cannot be read. Scoring cannot read it either, and gives the reason.
    """
    try:
        return fingerprint_bytes(read_file(path))
    except ImageError:
        return None
