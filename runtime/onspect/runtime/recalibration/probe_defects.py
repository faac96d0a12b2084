"""Probe defects: spots drawn on good parts, which show whether a model still detects defects.

A line that changes its lamp has good parts but hardly a defective one. Good parts with a drawn spot then show whether
good and defective parts still have different scores. Three spots are darker and one is brighter, by a share of the
local brightness. So they scale with the light like dirt, holes and glare. They represent defects of that size only.
Calibration stores the scores of the probes in the model file, for comparison.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onspect.runtime.inspection.inspector import Inspector

MAX_MARKED = 100
"""Largest number of good images that calibration draws probe defects on: they take four runs each."""

_GAINS = (0.7, 0.5, 0.3, 1.5)  # brightness of a probe relative to its place
_RADIUS = 0.05  # of the image's shorter side


def draw_probe_defects(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Draw each probe defect on a copy of an image.

    The places follow from number and are the same on every machine. They are well spread inside the middle three
    fifths.

    Parameters
    ----------
    image
        uint8 [height, width, channels].
    number
        Position of the image among the images, from 0.

    Returns
    -------
    NDArray[np.uint8]
        uint8 [4, height, width, channels].
    """
    height, width = image.shape[:2]
    marked = []  # the steps below, 1/p and 1/p^2 with p^3 = p + 1, leave no gaps and repeat no place
    for mark, gain in enumerate(_GAINS, start=number * len(_GAINS)):
        across, down = (0.2 + 0.6 * math.modf(0.5 + (mark + 1) * step)[0] for step in (0.7548776662, 0.5698402910))
        shape = _draw_spot(height, width, across * width, down * height)
        marked.append(np.rint(image * (1.0 + (gain - 1.0) * shape[:, :, None])).clip(0, 255).astype(np.uint8))
    return np.stack(marked)


def score_probe_defects(inspector: Inspector, image: NDArray[np.uint8], number: int) -> tuple[float, ...]:
    """Score an image with each of the probe defects.

    Parameters
    ----------
    inspector
        The model.
    image
        A model input, uint8 [height, width, channels].
    number
        Position of the image among the images, from 0.

    Returns
    -------
    tuple[float, ...]
        The four scores.
    """
    return tuple(float(score) for score in inspector.infer(draw_probe_defects(image, number)).score)


def _draw_spot(height: int, width: int, x: float, y: float) -> NDArray[np.float64]:
    """Return a soft disc at (x, y), float64 [h, w], 1 inside and 0 outside."""
    radius = _RADIUS * min(height, width)
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
    return np.asarray((1.0 + (radius - distance) / max(1.0, 0.5 * radius)).clip(0.0, 1.0))
