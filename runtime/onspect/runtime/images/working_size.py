"""The working size of a model: a pixel budget at the aspect ratio of the training images.

Training and ``onspect teach`` call the same function, so both use the same size for the same images. This module needs
no packages.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

MULTIPLE = 32
"""Default multiple of both sides, in pixels: the stride of the coarsest features."""

_WEIGHT_OF_AREA = 0.25
"""Cost of fewer pixels: half of them cost as much as a stretch by 1.19."""


def working_size(sizes: Sequence[tuple[int, int]], budget: int, multiple: int = MULTIPLE) -> tuple[int, int]:
    """Return the height and width at which a model works on images.

    The result has the median aspect ratio of the images, as closely as the other rules allow, and uses as much of the
    budget as it can. Both sides are multiples of `multiple`. No side is longer than the image's own, rounded to the
    nearest multiple. A side that is shorter than `multiple` keeps its own length.

    Parameters
    ----------
    sizes
        Height and width of each training image, in pixels.
    budget
        Most pixels (height times width) of the result. Only sides that cannot be shorter than one multiple may
        exceed it.
    multiple
        Both sides are multiples of this number of pixels.

    Returns
    -------
    tuple[int, int]
        Height and width, in pixels.

    Raises
    ------
    ValueError
        If there are no sizes, or if a side, the budget or the multiple is below 1.
    """
    if not sizes:
        raise ValueError("there are no image sizes; give the height and width of at least one image")
    smallest = min(budget, multiple, *(side for size in sizes for side in size))
    if smallest < 1:
        raise ValueError(f"image sides, budget and multiple must be at least 1 pixel, and one of them is {smallest}")
    height, width = median_size(sizes)
    target = min(float(budget), height * width)

    def cost(size: tuple[int, int]) -> tuple[float, int]:
        distortion = abs(math.log(size[0] / size[1]) - math.log(height / width))
        shortage = abs(math.log(size[0] * size[1] / target))
        return round(distortion + _WEIGHT_OF_AREA * shortage, 9), -size[0] * size[1]

    rows, columns = _sides(height, multiple), _sides(width, multiple)
    affordable = [(row, column) for row in rows for column in columns if row * column <= budget]
    return min(affordable, key=cost) if affordable else (rows[0], columns[0])


def own_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Return the height and width at which a model with `keep_aspect` works on an image.

    Parameters
    ----------
    height
        Height of the image in pixels.
    width
        Width of the image in pixels.
    area
        Number of pixels of the result; it is met as closely as the multiples allow. A very long image has one multiple
        across, and its aspect ratio is not kept beyond that.

    Returns
    -------
    tuple[int, int]
        Height and width in pixels, multiples of `MULTIPLE`, with about the aspect ratio of the image.
    """
    factor, longest = math.sqrt(area / (height * width)) / MULTIPLE, max(1, area // MULTIPLE**2)
    rows, columns = (min(max(1, round(side * factor)), longest) for side in (height, width))
    return rows * MULTIPLE, columns * MULTIPLE


def largest_stretch(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> float:
    """Return how much the aspect ratio of the most different image changes when it is resized.

    Parameters
    ----------
    sizes
        Height and width of each image, in pixels.
    size
        Height and width that all images are resized to, in pixels.

    Returns
    -------
    float
        Factor of at least 1: 1.0 if no image changes its shape, 2.0 if one becomes twice as wide or high as before.
    """
    height, width = size
    return max(max(own * width / (height * across), height * across / (own * width)) for own, across in sizes)


def median_size(sizes: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the height and width with the median aspect ratio and the median area, both on a logarithmic scale.

    Parameters
    ----------
    sizes
        Height and width of each image in pixels, one or more.

    Returns
    -------
    tuple[float, float]
        Height and width in pixels.
    """
    if len(set(sizes)) == 1:
        return float(sizes[0][0]), float(sizes[0][1])  # exact, without the rounding of a logarithm
    ratio = statistics.median(math.log(height / width) for height, width in sizes)
    area = statistics.median(math.log(height * width) for height, width in sizes)
    return math.exp((area + ratio) / 2), math.exp((area - ratio) / 2)


def _sides(side: float, multiple: int) -> Sequence[int]:
    """Return the allowed lengths of a side, in pixels, the shortest first."""
    if side < multiple:
        return [max(1, round(side))]
    return range(multiple, math.floor(side / multiple + 0.5) * multiple + 1, multiple)
