"""Regions of an error map at or above a threshold, in pixels of the source image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.model.schema import Threshold
from onspect.runtime.records import quick_init

if TYPE_CHECKING:
    from onspect.runtime.images.placement import Placement
    from onspect.runtime.judgement import Judgement

_SHEET = 1 << 16  # pixels of maps that are searched for regions together
_MANY_LABELS = 65535  # most regions that 16 bits can count, which is twice as fast as 32


@quick_init
@dataclass(frozen=True)
class Region:
    """A connected part of the error map at or above the threshold, in pixels of the source image."""

    x: int
    """Left edge."""

    y: int
    """Top edge."""

    width: int
    """Width, at least 1."""

    height: int
    """Height, at least 1."""

    peak: float
    """Highest error inside."""

    area: int
    """Area in square pixels, at least 1."""


def find_regions(
    error_map: NDArray[np.float32], threshold: Threshold, width: int, height: int, verdict: Judgement = "ok"
) -> tuple[Region, ...]:
    """Return the connected regions (8 neighbours) with error >= threshold.map, highest peak first.

    A region of fewer than threshold.area pixels is left out. The highest region of a part that is not ``ok`` is
    kept, because the verdict may depend on it.

    Parameters
    ----------
    error_map
        float32 [h, w], at the model's working size.
    threshold
        The cut of the map, and the smallest area.
    width
        Width of the source image in pixels. Regions are scaled to it.
    height
        Height of the source image in pixels.
    verdict
        Verdict of the part.

    Returns
    -------
    tuple[Region, ...]
        The regions in pixels of the source image.
    """
    return find_regions_of_batch(error_map[None], [float(error_map.max())], threshold, [(width, height)], [verdict])[0]


def find_regions_of_batch(
    error_maps: NDArray[np.float32],
    peaks: Sequence[float],
    threshold: Threshold,
    sizes: Sequence[tuple[int, int]],
    verdicts: Sequence[Judgement],
) -> list[tuple[Region, ...]]:
    """Return the regions of each map of a batch, as `find_regions` does.

    Small maps are searched together, because there the calls take longer than the work. Large maps are searched one
    by one, each within the box around its high errors.

    Parameters
    ----------
    error_maps
        float32 [n, h, w], at the model's working size; maps of different sizes: an array of objects [n].
    peaks
        Highest error of each map.
    threshold
        The cut of the maps, and the smallest area.
    sizes
        Width and height of each source image in pixels.
    verdicts
        Verdict of each part.

    Returns
    -------
    list[tuple[Region, ...]]
        The regions of each image, in pixels of that image.
    """
    found: list[list[Region]] = [[] for _ in sizes]
    high = [number for number, peak in enumerate(peaks) if peak >= threshold.map]
    if not high:  # true for most parts
        return [()] * len(found)
    if error_maps.ndim == 1:
        for number in high:
            one = error_maps[number][None]
            regions = find_regions_of_batch(one, [peaks[number]], threshold, [sizes[number]], [verdicts[number]])
            found[number].extend(regions[0])
        return [tuple(regions) for regions in found]
    cut = _least_float32(threshold.map)
    rows, columns = error_maps.shape[1:]
    together = max(1, _SHEET // (rows * columns))
    for first in range(0, len(high), together):
        some = high[first : first + together]
        for number, pixels, *box, peak in _connect(_one_below_the_other(error_maps, some), cut, rows):
            place = some[number]
            if pixels >= threshold.area or (not found[place] and verdicts[place] != "ok"):
                found[place].append(_scale(box, pixels, peak, (columns, rows), sizes[place]))
    return [tuple(regions) for regions in found]


def move_to_frame(regions: Sequence[Region], placement: Placement) -> tuple[Region, ...]:
    """Convert regions of a crop to regions of its frame.

    Parameters
    ----------
    regions
        Regions in pixels of the crop.
    placement
        Where the crop is in the frame.

    Returns
    -------
    tuple[Region, ...]
        The regions in pixels of the frame. A region of a rotated crop becomes the upright box around it.
    """
    factor = placement.area_factor
    moved = []
    for region in regions:
        box = placement.box_in_frame(region.x, region.y, region.width, region.height)
        moved.append(Region(*box, region.peak, max(1, round(region.area * factor))))
    return tuple(moved)


def _scale(box: Sequence[int], pixels: int, peak: float, shape: tuple[int, int], size: tuple[int, int]) -> Region:
    """Return a region of an error map in pixels of its image; box is left, top, width and height."""
    (left, top, wide, high), (width, height) = box, size
    across, down = width / shape[0], height / shape[1]
    x, y = math.floor(left * across), math.floor(top * down)
    return Region(
        x,
        y,
        max(1, min(width, math.ceil((left + wide) * across)) - x),  # rounding may pass the image's edge
        max(1, min(height, math.ceil((top + high) * down)) - y),
        peak,
        max(1, round(pixels * across * down)),
    )


def _one_below_the_other(maps: NDArray[np.float32], some: list[int]) -> NDArray[np.float32]:
    """Stack some of the maps [n, h, w] into one of n * (h + 1) rows, with a separating row below each."""
    if len(some) == 1:
        alone: NDArray[np.float32] = maps[some[0]]
        return alone
    _, rows, columns = maps.shape
    sheet = np.full((len(some), rows + 1, columns), -np.inf, np.float32)
    sheet[:, :rows] = maps[some]
    return sheet.reshape(-1, columns)


def _connect(sheet: NDArray[np.float32], cut: np.float32, rows: int) -> Iterator[tuple[Any, ...]]:
    """Yield the regions of stacked maps of equal height, map by map, the highest peak first.

    Each region has the number of its map, its pixels, left and top edge, width and height, and its peak.
    """
    high_errors = (sheet >= cut).view(np.uint8)
    left, top, wide, high = cv2.boundingRect(high_errors)
    box = slice(top, top + high), slice(left, left + wide)
    kind = cv2.CV_16U if -(-wide // 2) * -(-high // 2) < _MANY_LABELS else cv2.CV_32S
    count, labels, stats, _ = cv2.connectedComponentsWithStats(high_errors[box], ltype=kind)
    inside = np.flatnonzero(high_errors[box])
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, np.ravel(labels)[inside].astype(np.intp), sheet[box].ravel()[inside])
    lefts, tops = stats[1:, 0] + left, stats[1:, 1] + top
    numbers, tops = np.divmod(tops, rows + 1)
    order = np.lexsort((lefts, tops, -peaks[1:], numbers))
    facts = (numbers, stats[1:, 4], lefts, tops, stats[1:, 2], stats[1:, 3], peaks[1:])
    return zip(*(fact[order].tolist() for fact in facts), strict=True)


def _least_float32(cut: float) -> np.float32:
    """Return the lowest float32 that is not below a cut, so that a float32 map is compared without conversion."""
    with np.errstate(over="ignore"):
        nearest = np.float32(cut)
    return nearest if float(nearest) >= cut else np.nextafter(nearest, np.float32(np.inf))
