"""The pictures that are taught: reading them, the size at which they are worked on, and which cannot be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from onspect.runtime.dataset.crop import Crop, fit_crop
from onspect.runtime.dataset.folder import training_images
from onspect.runtime.dataset.good_images import GoodImages, load_good_images
from onspect.runtime.errors import DatasetError
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.working_size import MULTIPLE, median_size, working_size
from onspect.runtime.model.schema import Preprocess
from onspect.runtime.teaching.fit import Progress

BUDGET = 128 * 1024
"""Most pixels of the working size."""

OBJECT_SIDE = 64
"""Pictures with a side below this, in pixels, show a whole object and no places of it."""

FEWEST = 2
"""Pictures that it takes to teach: one shows nothing of how good parts differ."""

_SMALL = 192  # sides below this are enlarged to twice their length, for the deepest features to have enough places
_OBJECT_ENLARGED = 128  # the shorter side of pictures of whole objects


def load(
    pictures: Path | str | Sequence[Path | str],
    size: tuple[int, int] | None,
    channels: int | None,
    white_level: int,
    any_size: bool,
    region: RegionFile | None,
    progress: Progress | None,
) -> GoodImages:
    """Read good pictures to teach; size is width and height to work at, None for the pictures' own.

    The others are as in `teach`, with its errors.
    """

    def choose(shapes: Sequence[tuple[int, int]], _: int) -> tuple[int, int]:
        return choose_working_size(shapes) if size is None else (size[1], size[0])

    paths = _list(pictures)
    return load_good_images(
        paths,
        choose,
        channels=channels,
        white_level=white_level,
        any_size=any_size,
        crop=None if region is None else fit_crop(region, paths, white_level=white_level),
        progress=progress,
    )


def load_like(
    pictures: Path | str | Sequence[Path | str], preprocess: Preprocess, progress: Progress | None
) -> GoodImages:
    """Read pictures as a model takes them; raises DatasetError where it does not accept one."""
    found = load_good_images(
        _list(pictures),
        lambda *_: (preprocess.height, preprocess.width),
        channels=preprocess.channels,
        white_level=preprocess.white_level,
        any_size=True,
        crop=Crop.of(preprocess),
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
    """Return the height and width at which a memory works on images of these shapes: multiples of 32.

    Images with a side below 192 pixels are enlarged to twice their size, those of whole objects, with a side below 64
    pixels, until their shorter side has 128. No others are enlarged: their sides are rounded down.
    """
    height, width = median_size(shapes)  # one small picture among many must not enlarge them all
    smallest = min(height, width)
    factor = 1.0
    if smallest < _SMALL:
        factor = _OBJECT_ENLARGED / smallest if smallest < OBJECT_SIDE else 2.0
    median = tuple(max(MULTIPLE, int(side * factor + 1e-6) // MULTIPLE * MULTIPLE) for side in (height, width))
    return working_size([(median[0], median[1])], BUDGET)


def name_folder(pictures: Path | str | Sequence[Path | str]) -> str:
    """Return the name of the pictures' folder, or ``pictures`` for a list of files."""
    return Path(pictures).resolve().name if isinstance(pictures, str | Path) else "pictures"


def check_pictures(found: GoodImages) -> None:
    """Raise DatasetError where there is one picture only, or all show the same pixels."""
    count = len(found.images)
    if count < FEWEST:
        raise DatasetError(
            f"there is only 1 picture, {str(found.paths[0])!r}, which does not show how good parts differ; give at "
            f"least 2, better 10 or more"
        )
    if (found.images == found.images[0]).all():
        raise DatasetError(
            f"all {count} pictures have the same pixels, such as {str(found.paths[0])!r}; give pictures of "
            "different good parts"
        )


def take(found: GoodImages, places: Sequence[int]) -> GoodImages:
    """Return some of the images."""
    return dataclasses.replace(
        found,
        paths=tuple(found.paths[place] for place in places),
        images=found.images[list(places)],
        fingerprints=tuple(found.fingerprints[place] for place in places),
        shapes=[found.shapes[place] for place in places],
    )


def show_objects(found: GoodImages) -> bool:
    """Return whether the pictures are so small that each shows a whole object and no places of it."""
    return min(median_size(found.crops)) < OBJECT_SIDE


def _list(pictures: Path | str | Sequence[Path | str]) -> list[Path]:
    if isinstance(pictures, str | Path):
        return training_images(Path(pictures))
    paths = [Path(path) for path in pictures]
    if not paths:
        raise DatasetError("there are no pictures to teach; give a folder of good pictures")
    return paths
