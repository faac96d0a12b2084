"""Pictures of a drawn part that is turned and shifted on a belt."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def draw_bracket(side: int = 120, *, defect: bool = False) -> NDArray[np.uint8]:
    """Draw a part without any symmetry, uint8 [side, side], on black."""
    scale = side / 120
    part = np.zeros((side, side), np.uint8)
    outline = np.array([[10, 20], [70, 10], [110, 40], [100, 105], [55, 85], [15, 108]]) * scale
    cv2.fillPoly(part, [outline.astype(np.int32)], (150,))
    for x, y, radius, grey in ((40, 40, 10, 40), (80, 50, 7, 60), (85, 85, 6, 220)):
        cv2.circle(part, (round(x * scale), round(y * scale)), round(radius * scale), (grey,), -1)
    if defect:
        cv2.circle(part, (round(60 * scale), round(68 * scale)), round(13 * scale), (2,), -1)
        cv2.circle(part, (round(60 * scale), round(68 * scale)), round(6 * scale), (250,), -1)
    return part


def draw_scene(
    x: float,
    y: float,
    angle: float,
    *,
    size: tuple[int, int] = (320, 240),
    scale: float = 1.0,
    seed: int = 0,
    light: float = 0.1,
    part: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draw a frame, uint8 [height, width], with the part's middle at x, y, turned counter-clockwise by degrees.

    light: by which share brightness differs at most from frame to frame, by the seed.
    """
    rng = np.random.default_rng(seed)
    frame = 50.0 + rng.normal(0.0, 2.0, size[::-1])
    if part is None:
        part = draw_bracket()
    middle = (part.shape[1] - 1) / 2.0
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, scale)
    matrix[:, 2] += (x - 0.5 - middle, y - 0.5 - middle)
    shown = cv2.warpAffine(part, matrix, size, flags=cv2.INTER_LINEAR).astype(np.float64)
    covered = cv2.warpAffine((part > 0).astype(np.float64), matrix, size, flags=cv2.INTER_LINEAR)
    brightness = 1.0 + light * rng.uniform(-1.0, 1.0)
    return ((frame * (1.0 - covered) + shown * covered) * brightness).clip(0, 255).astype(np.uint8)
