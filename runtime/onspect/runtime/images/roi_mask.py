"""The places that are inspected, from a picture that says so; what is elsewhere on a part can raise no alarm."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.model.schema import Preprocess

Mask = NDArray[np.bool_]
"""bool [height, width] at the working size, true where a part is inspected."""

_SHAPE_TOLERANCE = 0.01  # of the ratio of the sides: what rounding a smaller mask's sides to pixels costs
_GREYS = (0.25, 0.75)  # what is neither black nor white
_MOST_GREY = 0.1  # soft edges have fewer such pixels, photographs more


def read_mask(path: Path, recipe: Preprocess) -> Mask:
    """Read a black-and-white picture of the parts as a mask: white is inspected, black is ignored.

    It has any size, and the shape of the images that the model was trained on; a place of the working size is inspected
    where more than half of it is white. Raises ChoiceError where it cannot be read, is not black and white, has
    another shape, leaves nothing to inspect or nothing out, or where the model takes images of any shape.
    """
    sides = _common_sides(path, recipe)
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
    share = cv2.resize(light, (recipe.width, recipe.height), interpolation=cv2.INTER_AREA)
    mask: Mask = share > 0.5
    if mask.all() or not mask.any():
        what = "ignores nothing" if mask.all() else "leaves nothing to inspect"
        raise ChoiceError(
            f"the mask {str(path)!r} {what} at the working size of {recipe.width}x{recipe.height} (its pixels are "
            f"{light.min():.0%} to {light.max():.0%} white): paint the areas to inspect white, and the rest black"
        )
    return mask


def _common_sides(path: Path, recipe: Preprocess) -> tuple[int, int]:
    """Return a width and height that have the shape of all frames that the model accepts."""
    widths, heights = recipe.source.width, recipe.source.height
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
