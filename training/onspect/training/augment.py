"""Changes that a good part undergoes on a line, drawn for each image and epoch from the run's seed.

Only those that a camera and a fixture cause are on by default: a little more or less light, a pixel or two of play.
Flips and rotations teach the model that a part put in wrongly is normal, so they are for parts that have no side.
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
    """Return an image uint8 [h, w, c] changed at random in the chosen ways (`config.AUGMENTATIONS`).

    brightness: times 0.95 to 1.05. shift: up to 2% of the size, whole pixels, the edge repeated. rotate: up to 3
    degrees. flip-horizontal, flip-vertical: every other image.
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
    """Return an image moved by whole pixels, its edge repeated; far sooner than a warp."""
    height, width, channels = image.shape
    left, top = max(-right, 0), max(-down, 0)
    kept = image[top : height - max(down, 0), left : width - max(right, 0)]
    edges = (max(down, 0), top, max(right, 0), left)
    moved = cv2.copyMakeBorder(np.ascontiguousarray(kept), *edges, cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8).reshape(height, width, channels)
