"""The inspected places from a painted mask; defects elsewhere on a part raise no alarm."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.images.region import RegionFile, mask_of_region
from onspect.runtime.model.schema import Preprocess, RegionOfInterest

Mask = NDArray[np.bool_]
"""bool [height, width] at the working size, true where a part is inspected."""

_SHAPE_TOLERANCE = 0.01  # error of the ratio of the sides, from the rounding of a smaller mask to pixels
_GREYS = (0.25, 0.75)  # levels that are neither black nor white
_MOST_GREY = 0.1  # soft edges have fewer grey pixels, photographs more


def read_mask(path: Path, preprocess: Preprocess) -> Mask:
    """Read a black-and-white picture as a mask: white is inspected, black is ignored.

    It has any size, and the aspect ratio of the training images. A pixel of the working size is inspected if more than
    half of it is white. With a region it is a picture of the frame on which the region was drawn, and the places
    outside the region's box do not matter.

    Parameters
    ----------
    path
        The picture.
    preprocess
        The model's.

    Returns
    -------
    Mask
        bool [height, width] at the working size.

    Raises
    ------
    ChoiceError
        If it cannot be read, is not black and white, has another shape, or ignores nothing or everything, or if the
        model takes images of any shape.
    """
    sides = _common_sides(path, preprocess) if preprocess.region is None else preprocess.region.frame
    try:
        light = _to_light(read_image(path))
    except ImageError as error:
        raise ChoiceError(f"the mask {str(path)!r} cannot be used: {error}; give a black-and-white image") from error
    height, width = light.shape
    if abs(width * sides[1] - height * sides[0]) > _SHAPE_TOLERANCE * height * sides[0]:
        raise ChoiceError(
            f"the mask {str(path)!r} is {width}x{height} pixels and the training images are {sides[0]}x{sides[1]}: "
            "draw it on one of them, or scale it to their shape"
        )
    _check_colours(path, light)
    if preprocess.region is not None:
        x, y, wide, high = preprocess.region.box
        whole = cv2.resize(light, preprocess.region.frame, interpolation=cv2.INTER_AREA)
        light = np.asarray(whole[y : y + high, x : x + wide], np.float32)
    share = cv2.resize(light, (preprocess.width, preprocess.height), interpolation=cv2.INTER_AREA)
    mask: Mask = share > 0.5
    if (mask.all() and preprocess.region is None) or not mask.any():
        what = "ignores nothing" if mask.all() else "leaves nothing to inspect"
        raise ChoiceError(
            f"the mask {str(path)!r} {what} at the working size of {preprocess.width}x{preprocess.height} (its pixels "
            f"are {light.min():.0%} to {light.max():.0%} white): paint the areas to inspect white, and the rest black"
        )
    return mask


def read_inspected(path: Path | None, preprocess: Preprocess, region: RegionFile | None = None) -> Mask | None:
    """Return the places that a painted mask and the shapes of a region leave to inspect.

    Parameters
    ----------
    path
        The painted mask; None for none.
    preprocess
        The model's, with its region.
    region
        Shapes that mask a model trained on whole frames; None for none.

    Returns
    -------
    Mask | None
        bool [height, width] at the working size; None if everything is inspected.

    Raises
    ------
    ChoiceError
        If the mask is not valid, nothing is left to inspect, or the model has a region already.
    """
    if region is not None:
        preprocess = dataclasses.replace(preprocess, region=_mask_by(region, preprocess))
        path = path or (None if region.mask is None else Path(region.mask))
    shapes = mask_of_region(preprocess)
    if path is None:
        return shapes
    mask = read_mask(path, preprocess)
    joined = mask if shapes is None else mask & shapes
    if not joined.any():
        raise ChoiceError(
            f"the mask {str(path)!r} is black wherever the region is: together they leave nothing to inspect"
        )
    return None if joined.all() else joined


def _mask_by(region: RegionFile, preprocess: Preprocess) -> RegionOfInterest:
    """Return the whole frame as a region, with the shapes of a region inside it."""
    if preprocess.region is not None:
        raise ChoiceError("the run was trained on a region already; leave out --roi, or train again with another one")
    if region.reference is not None:
        raise ChoiceError("an alignment is learnt in training; give --roi with its reference to 'onspect train'")
    width, height = _common_sides(Path("--roi"), preprocess)
    placed = region.place(width, height)
    shapes = placed.rectangles or (() if placed.polygons else (placed.box,))
    return dataclasses.replace(placed, box=(0, 0, width, height), rectangles=shapes)


def _common_sides(path: Path, preprocess: Preprocess) -> tuple[int, int]:
    """Return a width and height with the shape of all frames that the model accepts."""
    widths, heights = preprocess.source.width, preprocess.source.height
    if widths is None or heights is None:
        raise ChoiceError(
            f"the mask {str(path)!r} cannot be used: this model accepts images of any size, so the position of a mask "
            f"in them is not known; train without --any-size"
        )
    (narrow, wide), (low, high) = widths, heights
    if abs(narrow * high - low * wide) > _SHAPE_TOLERANCE * low * wide:
        raise ChoiceError(
            f"the mask {str(path)!r} cannot be used: the training images differ in shape (the model accepts {narrow} "
            f"to {wide} pixels wide, {low} to {high} high), so a mask does not fit all of them; train on images of "
            f"one shape"
        )
    return wide, high


def _to_light(frame: Frame) -> NDArray[np.float32]:
    """Return a frame as float32 [height, width], black 0 and white 1."""
    grey = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return np.asarray(grey / np.iinfo(frame.dtype).max, np.float32)


def _check_colours(path: Path, light: NDArray[np.float32]) -> None:
    grey = float(((light > _GREYS[0]) & (light < _GREYS[1])).mean())
    if grey > _MOST_GREY:
        raise ChoiceError(
            f"the mask {str(path)!r} is not black and white: {grey:.0%} of its pixels are grey; "
            "paint the areas to inspect white, and the rest black"
        )
