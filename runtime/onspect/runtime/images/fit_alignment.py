"""Learn an alignment from good pictures: the reference, and the smallest confidence of a part."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError
from onspect.runtime.images.align import Finder, local_contrast, remove_smooth, sample, shrink_factor, shrink_to_grey
from onspect.runtime.images.coarse_search import Plane
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.placement import Pose
from onspect.runtime.model.schema import Alignment, Rectangle

SMALLEST_PATCH = 16
"""Shortest side of a reference patch, in pixels of the frame."""

_PICTURES = 32  # largest number of pictures for reference and confidence
_LEAST_GAIN = 0.1  # smallest difference of correlation between good parts and places without a part
_PLAUSIBLE = 0.25  # smallest correlation of a part that joins the median
_ROUNDS = 2  # rounds of the median; the second finds the parts by the median of the first


def fit_alignment(
    frames: Sequence[Callable[[], Frame]],
    patch: Rectangle,
    *,
    picture: Frame,
    turn: float,
    scale: float,
    white_level: int,
) -> Alignment:
    """Make the reference, and choose the smallest confidence, from good pictures.

    The reference is the median of the good parts, in the pose that the part has in `picture`. Each of the pictures is
    then searched with a reference that was made without it: once unchanged and once with the part painted over. The
    smallest confidence is half way between the 5% quantile of the first correlations and the 95% quantile of the
    second. If another place of the same picture correlates better, its correlation replaces the second one.

    Parameters
    ----------
    frames
        Functions that read the good pictures; at most 32, evenly spread, are used.
    patch
        x, y, width and height of the reference in `picture`.
    picture
        The picture on which region and patch were drawn.
    turn
        Largest rotation in degrees, 0 to 180.
    scale
        Largest change of size as a share.
    white_level
        White of uint16 pictures.

    Returns
    -------
    Alignment
        The alignment.

    Raises
    ------
    DatasetError
        If the patch is smaller than 16 pixels or has no contrast, or if good parts correlate hardly better with the
        reference than other places.
    """
    _check_patch(patch, picture)
    chosen = frames[:: -(-len(frames) // _PICTURES)]
    planes = [shrink_to_grey(read(), patch, white_level) for read in chosen]
    contrasts = [remove_smooth(plane, patch) for plane in planes]
    first = reference = _cut_patch(local_contrast(picture, patch, white_level), patch)
    for _ in range(_ROUNDS):
        finder = Finder(patch, reference, turn=turn, scale=scale)
        seen = [finder.find(contrast) for contrast in contrasts]
        patches = np.stack([finder.cut(contrast, pose) for contrast, pose in zip(contrasts, seen, strict=True)])
        alike = np.array([pose.confidence >= _PLAUSIBLE for pose in seen])
        reference = _median(patches[alike]) if alike.any() else first
    found, absent = [], []
    for number, (plane, contrast) in enumerate(zip(planes, contrasts, strict=True)):
        others = alike & (np.arange(len(alike)) != number)
        own = _median(patches[others]) if others.any() else first
        finder = Finder(patch, own, turn=turn, scale=scale)
        pose, other = finder.find_two(contrast)
        found.append(pose.confidence)
        empty = finder.find(remove_smooth(finder.paint_over(plane, pose), patch)).confidence
        absent.append(empty if other is None else max(empty, other.confidence))
    low, high = float(np.quantile(found, 0.05)), float(np.quantile(absent, 0.95))
    if low - high < _LEAST_GAIN:
        raise DatasetError(
            f"the part cannot be found by this reference: good parts correlate {max(low, 0.0):.2f} with it, "
            f"and other places {max(high, 0.0):.2f}; give a patch with a structure that occurs once, or good "
            "pictures that show the same part"
        )
    cut = min(0.98, max(0.05, (low + max(high, 0.0)) / 2.0))
    return Alignment(patch, _encode(reference), float(turn), float(scale), round(cut, 4), len(chosen))


def _check_patch(patch: Rectangle, picture: Frame) -> None:
    x, y, width, height = patch
    across, down = picture.shape[1], picture.shape[0]
    if x + width > across or y + height > down:
        raise DatasetError(
            f"the reference patch of {width}x{height} pixels at {x},{y} does not fit into its picture of "
            f"{across}x{down} pixels; draw it again"
        )
    if min(width, height) < SMALLEST_PATCH:
        raise DatasetError(
            f"the reference patch is {width}x{height} pixels; draw one of at least {SMALLEST_PATCH} pixels a side"
        )
    if picture[y : y + height, x : x + width].min() == picture[y : y + height, x : x + width].max():
        raise DatasetError("the reference patch has no contrast; draw it where the part has structure")


def _cut_patch(contrast: Plane, patch: Rectangle) -> Plane:
    """Return the contrast of the patch in its own picture."""
    factor = shrink_factor(patch)
    x, y, width, height = patch
    pose = Pose((x + width / 2.0) / factor, (y + height / 2.0) / factor, 0.0)
    return sample(contrast, pose, (height // factor, width // factor), 1)


def _median(patches: NDArray[np.float32]) -> Plane:
    return np.asarray(np.median(patches, axis=0), np.float32)


def _encode(reference: Plane) -> str:
    """Return a reference as the text of a PNG: 128 means no contrast, the strongest contrast is 1 or 255."""
    strongest = max(1e-3, float(np.abs(reference).max()))
    picture = np.rint(128.0 + reference * (127.0 / strongest)).astype(np.uint8)
    return base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
