"""Test marks: spots drawn on good parts, which tell whether a model still sees what is not good.

A line that changes its lamp has good parts at hand and hardly a defective one. Whether good and defective scores can
still be told apart then shows in parts with a drawn spot: three darker ones and a brighter one, by a share of the
brightness that is there, so that they scale with the light as dirt, holes and glare do. They stand in for defects of
that size, and for no others. Calibration leaves the marks' scores in the model file, to be compared with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onspect.runtime.inspection.inspector import Inspector

MAX_MARKED = 100
"""Good images that calibration draws marks on, at most: they take four runs each."""

_GAINS = (0.7, 0.5, 0.3, 1.5)  # a mark's brightness over that of its place
_RADIUS = 0.05  # of the image's shorter side


def draw_probe_defects(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Draw each mark on a copy of an image, uint8 [h, w, c], and return the copies, uint8 [4, h, w, c].

    The marks' places follow from number, the image's position among its like: well spread, inside the middle three
    fifths, the same on every machine.
    """
    height, width = image.shape[:2]
    marked = []  # the steps below, 1/p and 1/p^2 with p^3 = p + 1, leave no gaps and repeat no place
    for mark, gain in enumerate(_GAINS, start=number * len(_GAINS)):
        across, down = (0.2 + 0.6 * math.modf(0.5 + (mark + 1) * step)[0] for step in (0.7548776662, 0.5698402910))
        shape = _draw_spot(height, width, across * width, down * height)
        marked.append(np.rint(image * (1.0 + (gain - 1.0) * shape[:, :, None])).clip(0, 255).astype(np.uint8))
    return np.stack(marked)


def score_probe_defects(inspector: Inspector, image: NDArray[np.uint8], number: int) -> tuple[float, ...]:
    """Return the scores of an image with each of the marks; arguments as for `draw_probe_defects`."""
    return tuple(float(score) for score in inspector.infer(draw_probe_defects(image, number)).score)


def _draw_spot(height: int, width: int, x: float, y: float) -> NDArray[np.float64]:
    """Return a soft disc at (x, y), float64 [h, w], 1 inside and 0 outside."""
    radius = _RADIUS * min(height, width)
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
    return np.asarray((1.0 + (radius - distance) / max(1.0, 0.5 * radius)).clip(0.0, 1.0))
