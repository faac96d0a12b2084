"""The pictures that are taught: read and check them, and choose their working size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onspect.runtime.dataset.crop import Crop, fit_crop
from onspect.runtime.dataset.folder import training_images
from onspect.runtime.dataset.good_images import GoodImages, load_good_images
from onspect.runtime.errors import DatasetError
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.working_size import MULTIPLE, largest_stretch, median_size, working_size
from onspect.runtime.model.schema import Preprocess
from onspect.runtime.progress import Progress

BUDGET = 128 * 1024
"""Most pixels of the working size."""

OBJECT_SIDE = 64
"""Pictures with a side below this, in pixels, are judged as whole objects."""

FEWEST = 2
"""Smallest number of pictures: a single one does not show how good parts differ."""

_MOST_STRETCHED = 1.2  # times, by which rounding to multiples of 32 stretches pictures at most as a rule
_SMALL = 192  # sides below this are doubled, so that the deepest features have enough places
_OBJECT_ENLARGED = 128  # the shorter side of pictures of whole objects


def load(
    pictures: Path | str | Sequence[Path | str],
    size: tuple[int, int] | None,
    channels: int | None,
    white_level: int,
    any_size: bool,
    region: RegionFile | None,
    progress: Progress | None,
    *,
    one_size: bool = False,
) -> GoodImages:
    """Read good pictures to teach.

    Pictures of different shapes keep their aspect ratios (`Preprocess.keep_aspect`), if one size would stretch any of
    them more than 1.2 times. Those of whole objects and those with a region or a size never do.

    Parameters
    ----------
    pictures
        A folder of good pictures, or image files.
    size
        Working width and height in pixels; None for `choose_working_size`.
    channels
        1 or 3; None for 1 if every picture is grey, otherwise 3.
    white_level
        Value of a 16-bit picture that is white.
    any_size
        Whether the model accepts frames of any size later.
    region
        Region that frames are cropped to, with its alignment; None for whole frames.
    progress
        Wraps the reading, for a progress bar.
    one_size
        Whether the pictures need the same size in any case, as for a mask.

    Returns
    -------
    GoodImages
        The pictures as model inputs, without repeated files.

    Raises
    ------
    DatasetError
        If there are no pictures, or some cannot be read.
    ChoiceError
        If the region cannot be used.
    """

    def choose(shapes: Sequence[tuple[int, int]], _: int) -> tuple[int, int]:
        return choose_working_size(shapes) if size is None else (size[1], size[0])

    def differ(shapes: Sequence[tuple[int, int]]) -> bool:
        """Return whether one size would stretch some pictures too much."""
        if one_size or size is not None or min(median_size(shapes)) < OBJECT_SIDE:
            return False
        return largest_stretch(shapes, choose_working_size(shapes)) > _MOST_STRETCHED

    paths = _list(pictures)
    return load_good_images(
        paths,
        choose,
        channels=channels,
        white_level=white_level,
        any_size=any_size,
        crop=None if region is None else fit_crop(region, paths, white_level=white_level),
        keeps_aspect=differ,
        progress=progress,
    )


def load_like(
    pictures: Path | str | Sequence[Path | str], preprocess: Preprocess, progress: Progress | None
) -> GoodImages:
    """Read pictures as the inputs of a model.

    Parameters
    ----------
    pictures
        A folder of good pictures, or image files.
    preprocess
        How the model prepares frames.
    progress
        Wraps the reading, for a progress bar.

    Returns
    -------
    GoodImages
        The pictures as model inputs, without repeated files.

    Raises
    ------
    DatasetError
        If there are no pictures, some cannot be read, or the model does not accept the size of one.
    """
    found = load_good_images(
        _list(pictures),
        lambda *_: (preprocess.height, preprocess.width),
        channels=preprocess.channels,
        white_level=preprocess.white_level,
        any_size=True,
        crop=Crop.of(preprocess),
        keeps_aspect=lambda _: preprocess.keep_aspect,
        progress=progress,
    )
    limits = preprocess.source
    for path, (height, width) in zip(found.paths, found.shapes, strict=True):
        for side, accepted in ((width, limits.width), (height, limits.height)):
            if accepted is not None and not accepted[0] <= side <= accepted[1]:
                raise DatasetError(
                    f"{str(path)!r} is {width}x{height} pixels, which the model does not accept; take pictures of the "
                    "size that was taught, or teach again with --any-size"
                )
    return found


def choose_working_size(shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Choose the working size of a memory.

    Images with a side below 192 pixels are enlarged to twice their size. Images of whole objects, with a side below
    64 pixels, are enlarged until their shorter side has 128. Sides of larger images are rounded down.

    Parameters
    ----------
    shapes
        Height and width of each image in pixels.

    Returns
    -------
    tuple[int, int]
        Height and width in pixels, multiples of 32.
    """
    height, width = median_size(shapes)  # one small picture among many must not enlarge them all
    smallest = min(height, width)
    factor = 1.0
    if smallest < _SMALL:
        factor = _OBJECT_ENLARGED / smallest if smallest < OBJECT_SIDE else 2.0
    median = tuple(max(MULTIPLE, int(side * factor + 1e-6) // MULTIPLE * MULTIPLE) for side in (height, width))
    return working_size([(median[0], median[1])], BUDGET)


def name_folder(pictures: Path | str | Sequence[Path | str]) -> str:
    """Return the name of the pictures' folder.

    Parameters
    ----------
    pictures
        A folder of good pictures, or image files.

    Returns
    -------
    str
        The name of the folder, or ``pictures`` for a list of files.
    """
    return Path(pictures).resolve().name if isinstance(pictures, str | Path) else "pictures"


def check_pictures(found: GoodImages) -> None:
    """Check that the pictures show how good parts differ.

    Parameters
    ----------
    found
        The pictures.

    Raises
    ------
    DatasetError
        If there is only one picture, or all have the same pixels.
    """
    count = len(found.images)
    if count < FEWEST:
        raise DatasetError(
            f"there is only 1 picture, {str(found.paths[0])!r}, which does not show how good parts differ; give at "
            f"least 2, better 10 or more"
        )
    if all(np.array_equal(image, found.images[0]) for image in found.images):
        raise DatasetError(
            f"all {count} pictures have the same pixels, such as {str(found.paths[0])!r}; give pictures of "
            "different good parts"
        )


def take(found: GoodImages, places: Sequence[int]) -> GoodImages:
    """Return some of the images.

    Parameters
    ----------
    found
        The images.
    places
        Positions of the images to return.

    Returns
    -------
    GoodImages
        These images with their facts.
    """
    return dataclasses.replace(
        found,
        paths=tuple(found.paths[place] for place in places),
        images=found.images[list(places)],
        fingerprints=tuple(found.fingerprints[place] for place in places),
        shapes=[found.shapes[place] for place in places],
    )


def show_objects(found: GoodImages) -> bool:
    """Return whether the pictures are so small that each shows a whole object.

    Parameters
    ----------
    found
        The pictures.

    Returns
    -------
    bool
        True if the shorter side is below `OBJECT_SIDE` pixels.
    """
    return min(median_size(found.crops)) < OBJECT_SIDE


def _list(pictures: Path | str | Sequence[Path | str]) -> list[Path]:
    if isinstance(pictures, str | Path):
        return training_images(Path(pictures))
    paths = [Path(path) for path in pictures]
    if not paths:
        raise DatasetError("there are no pictures to teach; give a folder of good pictures")
    return paths
