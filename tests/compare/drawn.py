"""Small drawn images of several classes, for the tests of comparisons."""

import cv2
import numpy as np
from numpy.typing import NDArray


def draw_class(kind: int, seed: int, side: int = 28, channels: int = 1) -> NDArray[np.uint8]:
    """A bar (0), a ring (1) or a cross (2), bright on dark with a little noise; mono [side, side], or coloured."""
    random = np.random.default_rng(seed)
    image = random.normal(12, 3, (side, side)).astype(np.float32)
    x, y = (int(value) for value in random.integers(side // 2 - 2, side // 2 + 3, 2))
    reach = side // 3
    if kind == 0:
        cv2.line(image, (x, y - reach), (x, y + reach), 220, 3)
    elif kind == 1:
        cv2.circle(image, (x, y), reach - 2, 220, 2)
    else:
        cv2.line(image, (x - reach, y), (x + reach, y), 220, 2)
        cv2.line(image, (x, y - reach), (x, y + reach), 220, 2)
    mono = image.clip(0, 255).astype(np.uint8)
    if channels == 1:
        return mono
    tint = random.uniform(0.5, 1.0, channels)
    return np.asarray((mono[:, :, None] * tint).astype(np.uint8))
