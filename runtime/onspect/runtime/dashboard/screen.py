"""Pictures at the size of a page, as JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST = 960
"""Longest side in pixels: a page shows no more, and full pictures of a large camera need a whole core."""


def shrink(picture: NDArray[np.uint8], longest: int = LONGEST) -> NDArray[np.uint8]:
    """Shrink a picture that is larger than a page shows.

    Parameters
    ----------
    picture
        uint8 [height, width, 3].
    longest
        Longest side of the result in pixels.

    Returns
    -------
    NDArray[np.uint8]
        The shrunk picture, or the picture itself if it is small enough.
    """
    scale = longest / max(picture.shape[:2])
    if scale >= 1.0:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture for a page.

    Parameters
    ----------
    picture
        uint8 [height, width, 3], BGR.

    Returns
    -------
    bytes
        The JPEG file.
    """
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
