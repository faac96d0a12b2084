"""From a frame to blobs: places that differ from the learnt background, at any light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.model.schema import Rectangle

Side = Literal["left", "right", "top", "bottom"]
"""A side of the region."""

_LONG_SIDE = 160  # pixels of the shrunk region
_LEAST_CONTRAST, _MOST_CONTRAST = 12.0, 40.0  # grey levels
_NOISES = 6.0  # multiple of the noise from which a pixel differs
_SHARE = 0.3  # share of frames that must show the background at each pixel
_STATIC = 5  # largest number of equal frames in a row that are used for the background
_MOST_LEARNT = 64  # frames from which the background is made
_ROUNDS = 3
_AROUND, _CLEAR = 0.25, 0.4  # side of the neighbourhood, and the share of it that may differ
_GAINS = (0.4, 2.5)  # range of relative brightness in which the background is recognised
_FADE = 0.02  # weight of a new frame in the background
_SMALLEST = 0.002  # smallest part as a share of the region, while the usual area is unknown
_PART = 0.25  # smallest part as a share of the usual area


@dataclass(frozen=True)
class Blob:
    """A connected place that differs from the background; all lengths are in pixels of the frame."""

    x: float
    """Centre of gravity, from the left."""

    y: float
    """Centre of gravity, from the top."""

    left: float
    """First column."""

    top: float
    """First row."""

    right: float
    """Column after the last one."""

    bottom: float
    """Row after the last one."""

    area: float
    """Area in square pixels."""

    cut: frozenset[Side] = frozenset()
    """Sides of the region that the blob touches; empty for a whole blob."""

    @property
    def width(self) -> float:
        """Width of the bounding box."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height of the bounding box."""
        return self.bottom - self.top

    @property
    def length(self) -> float:
        """Longer side of the bounding box."""
        return max(self.width, self.height)

    def contains(self, x: float, y: float) -> bool:
        """Return whether the bounding box contains a point.

        Parameters
        ----------
        x
            Column of the point.
        y
            Row of the point.

        Returns
        -------
        bool
            True if the point is inside or on the edge.
        """
        return self.left <= x <= self.right and self.top <= y <= self.bottom

    def distance(self, x: float, y: float) -> float:
        """Return the distance between the centre of gravity and a point.

        Parameters
        ----------
        x
            Column of the point.
        y
            Row of the point.

        Returns
        -------
        float
            Distance in pixels.
        """
        return math.hypot(self.x - x, self.y - y)

    def piece(self, middle: float, count: int, *, across: bool) -> Blob:
        """Return the blob of one of several parts that touch each other.

        Parameters
        ----------
        middle
            Middle of the piece, along x (across) or y.
        count
            Number of parts in the blob, 1 or more.
        across
            Whether the parts are side by side along x.

        Returns
        -------
        Blob
            The piece.
        """
        if across:
            half = self.width / count / 2.0
            return replace(self, x=middle, left=middle - half, right=middle + half, area=self.area / count)
        half = self.height / count / 2.0
        return replace(self, y=middle, top=middle - half, bottom=middle + half, area=self.area / count)


class BlobFinder:
    """Find blobs in the frames of one camera.

    Parameters
    ----------
    background
        The region without parts, as `shrink` returns it: float32 [h, w, channels].
    contrast
        Grey levels by which a part differs from the background, 1 to 255.
    region
        x, y, width and height of the region in pixels of the frame.
    """

    def __init__(self, background: NDArray[np.float32], contrast: float, region: Rectangle) -> None:
        self.background = background.copy()
        self.contrast = contrast
        self.region = region
        self.gain = 1.0
        """Brightness of the last frame, relative to that of the background."""
        self._empty: NDArray[np.bool_] | None = None

    def find(self, small: NDArray[np.float32], area: float | None) -> list[Blob]:
        """Return the blobs of a shrunk frame, without those that are too small for a part.

        Parameters
        ----------
        small
            The frame, as `shrink` returns it: float32 [h, w, channels].
        area
            Usual area of a part in square pixels; None if it is unknown.

        Returns
        -------
        list[Blob]
            The blobs from left to right.

        Raises
        ------
        ImageError
            If the size differs from the background's, or the frame is too dark or too bright to recognise it.
        """
        if small.shape != self.background.shape:
            raise ImageError(
                f"presence: the frame's region is {small.shape[1]}x{small.shape[0]}x{small.shape[2]} after shrinking, "
                f"the background's {self.background.shape[1]}x{self.background.shape[0]}x{self.background.shape[2]}; "
                "learn the background again with this camera mode",
                code="size",
            )
        self.gain = self._fit_gain(small)
        if not _GAINS[0] <= self.gain <= _GAINS[1]:
            raise ImageError(
                f"presence: the frame is {self.gain:.2f} times as bright as the learnt background, and "
                f"{_GAINS[0]:g} to {_GAINS[1]:g} is accepted; check light and exposure, or learn the background again",
                code="brightness",
            )
        strongest = _strongest(cv2.absdiff(small, self.background * np.float32(self.gain)))
        threshold = self.contrast * max(0.5, min(1.0, self.gain))
        mask = (strongest > threshold).astype(np.uint8)
        mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)
        self._learn(small, mask)
        return self._list_blobs(mask, area)

    def _fit_gain(self, small: NDArray[np.float32]) -> float:
        """Return the brightness of a frame relative to the background, from the places without a part."""
        seen, known = _add_channels(small[::2, ::2]), _add_channels(self.background[::2, ::2])
        usable = known > 8.0 * small.shape[2]
        if self._empty is not None and (both := usable & self._empty[::2, ::2]).mean() > 0.1:
            usable = both
        if not usable.any():
            return 1.0
        return float(_densest(np.sort(seen[usable] / known[usable])[:, None], 0.4)[0])

    def _learn(self, small: NDArray[np.float32], mask: NDArray[np.uint8]) -> None:
        """Adapt the background to slow changes at the places without a part."""
        wide = cv2.dilate(mask, np.ones((7, 7), np.uint8))
        self._empty = wide == 0
        cv2.accumulateWeighted(small / np.float32(self.gain), self.background, _FADE, self._empty.astype(np.uint8))

    def _list_blobs(self, mask: NDArray[np.uint8], area: float | None) -> list[Blob]:
        x, y, width, height = self.region
        rows, columns = mask.shape
        across, down = width / columns, height / rows
        least = (_SMALLEST * width * height if area is None else _PART * area) / (across * down)
        count, _, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
        blobs = []
        for (left, top, wide, high, pixels), (middle_x, middle_y) in zip(
            stats[1:count].tolist(), centres[1:count].tolist(), strict=True
        ):
            sides: dict[Side, bool] = {
                "left": left <= 0,
                "right": left + wide >= columns,
                "top": top <= 0,
                "bottom": top + high >= rows,
            }
            cut = frozenset(side for side, touches in sides.items() if touches)
            if pixels < (least if not cut else 0.5 * least):
                continue
            blobs.append(
                Blob(
                    x + (middle_x + 0.5) * across,
                    y + (middle_y + 0.5) * down,
                    x + left * across,
                    y + top * down,
                    x + (left + wide) * across,
                    y + (top + high) * down,
                    pixels * across * down,
                    cut,
                )
            )
        return sorted(blobs, key=lambda blob: (blob.x, blob.y))


def shrink(frame: Frame, region: Rectangle | None, white_level: int = 65535) -> NDArray[np.float32]:
    """Return a region of a frame at up to 160 pixels a side, in grey levels of 0 to 255.

    Parameters
    ----------
    frame
        HxW or HxWxC, uint8 or uint16.
    region
        x, y, width and height in pixels; None for the whole frame.
    white_level
        White of a uint16 frame.

    Returns
    -------
    NDArray[np.float32]
        float32 [h, w, channels].

    Raises
    ------
    ImageError
        If the region does not fit into the frame.
    """
    height, width = frame.shape[:2]
    if region is not None:
        x, y, wide, high = region
        if x + wide > width or y + high > height:
            raise ImageError(
                f"presence: the region of {wide}x{high} pixels at {x},{y} does not fit into the frame of "
                f"{width}x{height} pixels",
                code="size",
            )
        frame = frame[y : y + high, x : x + wide]
        height, width = high, wide
    factor = max(1.0, max(width, height) / _LONG_SIDE)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = frame if factor == 1.0 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    scale = 255.0 / white_level if frame.dtype == np.uint16 else 1.0
    return np.asarray(small.reshape(size[1], size[0], -1), np.float32) * np.float32(scale)


def learn_background(frames: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], float]:
    """Return the background of shrunk frames, and the contrast of a part.

    The background of a pixel is first the densest range of its values. Then it is the median of the frames in which the
    neighbourhood shows the background, which removes traces of parts. Of frames of a stopped belt, only five in a row
    are used. The contrast is six times the noise, 12 to 40 grey levels.

    Parameters
    ----------
    frames
        Frames as `shrink` returns them, one or more.

    Returns
    -------
    tuple[NDArray[np.float32], float]
        The background, float32 [h, w, channels], and the contrast in grey levels.
    """
    kept = [frames[0]]
    static = 0
    for frame in frames[1:]:
        moved = float((_strongest(cv2.absdiff(frame, kept[-1])) > _MOST_CONTRAST).mean())
        static = 0 if moved > 0.002 else static + 1
        if static <= _STATIC:
            kept.append(frame)
    stack = np.stack(kept[:: -(-len(kept) // _MOST_LEARNT)])
    reference = np.median(stack, axis=0) + 1.0
    lights = np.array(
        [_densest(np.sort(((one + 1.0) / reference)[::3, ::3].reshape(-1, 1), axis=0), 0.4)[0] for one in stack],
        np.float32,
    )
    stack /= lights[:, None, None, None]
    background = _densest(np.sort(stack, axis=0), _SHARE)
    for _ in range(_ROUNDS):
        background = _clear_ghosts(stack, background)
    deviations = np.sort(np.abs(stack - background), axis=0)[: max(1, int(_SHARE * len(stack)))]
    noise = float(np.median(deviations[-1])) / 0.4  # 30% of a normal distribution deviate by less than 0.39 sigma
    return background, float(np.clip(_NOISES * noise, _LEAST_CONTRAST, _MOST_CONTRAST))


def _clear_ghosts(stack: NDArray[np.float32], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median over the frames [n, h, w, channels] in which a pixel's neighbourhood shows the background."""
    side = max(3, int(_AROUND * max(background.shape[:2])) | 1)
    masks = [(_strongest(cv2.absdiff(one, background)) > _MOST_CONTRAST / 2).astype(np.float32) for one in stack]
    clear = np.stack([cv2.blur(mask, (side, side)) < _CLEAR for mask in masks])
    count = clear.sum(axis=0)
    ordered = np.sort(np.where(clear[..., None], stack, np.float32(np.inf)), axis=0)
    middle = np.broadcast_to((np.maximum(count, 1) - 1)[None, ..., None] // 2, (1, *background.shape))
    median = np.take_along_axis(ordered, middle, 0)[0]
    return np.asarray(np.where((count >= 3)[..., None], median, background), np.float32)


def background_of_border(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a background of one colour, the median of a frame's border.

    Parameters
    ----------
    small
        The frame, float32 [h, w, channels].

    Returns
    -------
    NDArray[np.float32]
        float32 [h, w, channels].
    """
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    return np.broadcast_to(np.median(border, axis=0), small.shape).astype(np.float32)


def _strongest(difference: NDArray[Any]) -> NDArray[np.float32]:
    """Return the largest value of each pixel's channels, float32 [h, w]."""
    if difference.ndim == 2 or difference.shape[2] == 1:
        return np.asarray(difference, np.float32).reshape(difference.shape[:2])
    return np.asarray(reduce(cv2.max, cv2.split(difference)), np.float32)


def _add_channels(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    return reduce(np.add, (picture[:, :, channel] for channel in range(picture.shape[2])))


def _densest(ordered: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return the mean of the narrowest range that contains a share of the values, sorted along the first axis."""
    count = len(ordered)
    inside = max(1, math.ceil(share * count))
    spans = ordered[inside - 1 :] - ordered[: count - inside + 1]
    start = spans.argmin(axis=0)[None]
    low, high = np.take_along_axis(ordered, start, 0), np.take_along_axis(ordered, start + inside - 1, 0)
    middle: NDArray[np.float32] = np.asarray((low + high) / 2.0, np.float32)[0]
    return middle
