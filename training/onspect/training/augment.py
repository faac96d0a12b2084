"""Random changes of training images, of the kind that a good part shows on a line.

By default only light and position change, since those depend on the camera and the fixture. Flips and rotations teach
the model that a part put in wrongly is normal. Use them only for parts without a preferred side.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_GAIN = 0.05
_SHIFT = 0.02
_DEGREES = 3.0


def augment(image: NDArray[np.uint8], chosen: Sequence[str], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a randomly changed copy of an image.

    Parameters
    ----------
    image
        uint8 [height, width, channels].
    chosen
        Names from `config.AUGMENTATIONS`. ``brightness``: factor 0.95 to 1.05. ``shift``: up to 2% of the size, in
        whole pixels, with repeated edges. ``rotate``: up to 3 degrees. ``flip-horizontal``, ``flip-vertical``: with
        probability 0.5.
    random
        Generator of the random numbers; the same state gives the same image.

    Returns
    -------
    NDArray[np.uint8]
        The changed image, with the shape of `image`.
    """
    height, width, channels = image.shape
    if "flip-horizontal" in chosen and random.random() < 0.5:
        image = image[:, ::-1]
    if "flip-vertical" in chosen and random.random() < 0.5:
        image = image[::-1]
    angle = random.uniform(-_DEGREES, _DEGREES) if "rotate" in chosen else 0.0
    shift = np.zeros(2, np.int64)
    if "shift" in chosen:
        shift = np.rint(random.uniform(-_SHIFT, _SHIFT, 2) * (width, height)).astype(np.int64)
    if angle:
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        matrix[:, 2] += shift
        moved = cv2.warpAffine(np.ascontiguousarray(image), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        image = np.asarray(moved, np.uint8).reshape(height, width, channels)
    elif shift.any():
        image = _moved(image, int(shift[0]), int(shift[1]))
    if "brightness" in chosen:
        lit = cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=random.uniform(1.0 - _GAIN, 1.0 + _GAIN))
        image = np.asarray(lit, np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(image)


def _moved(image: NDArray[np.uint8], right: int, down: int) -> NDArray[np.uint8]:
    """Return an image moved by whole pixels, with repeated edges; much faster than a warp."""
    height, width, channels = image.shape
    left, top = max(-right, 0), max(-down, 0)
    kept = image[top : height - max(down, 0), left : width - max(right, 0)]
    edges = (max(down, 0), top, max(right, 0), left)
    moved = cv2.copyMakeBorder(np.ascontiguousarray(kept), *edges, cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8).reshape(height, width, channels)
