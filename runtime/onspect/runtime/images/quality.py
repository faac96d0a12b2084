"""How bright and how sharp a model input is, by which a line knows a picture that training never saw."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.model.schema import Appearance


def measure(prepared: NDArray[np.uint8]) -> tuple[float, float]:
    """Return brightness and sharpness of a model input, uint8 [height, width, channels].

    Brightness is the mean, 0 to 255. Sharpness is the standard deviation of the Laplacian (3x3), 0 or more: focus and
    motion blur lower it, and so does a lens that is dirty or steamed up.
    """
    edges = cv2.Laplacian(prepared, cv2.CV_16S)
    spread = cv2.meanStdDev(edges)[1]
    return float(np.mean(cv2.mean(prepared)[: prepared.shape[2]])), float(spread.mean())


def span(images: Iterable[NDArray[np.uint8]]) -> Appearance:
    """Return lowest and highest brightness and sharpness of model inputs, of which there is one at least."""
    brightness, sharpness = np.transpose([measure(image) for image in images])
    return Appearance(
        (float(brightness.min()), float(brightness.max())), (float(sharpness.min()), float(sharpness.max()))
    )
