"""Brightness and sharpness of a model input, to recognise a picture unlike those of training."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.images.decode import Frame
from onspect.runtime.model.schema import Appearance

_WHITES = (255, 1023, 4095, 16383, 65535)


def find_white_level(frame: Frame) -> int:
    """Return the end of the smallest usual bit depth that fits a frame, for pictures of frames without a model.

    Parameters
    ----------
    frame
        HxW or HxWxC, uint8 or uint16.

    Returns
    -------
    int
        255, 1023, 4095, 16383 or 65535; for uint8 always 255.
    """
    brightest = 255 if frame.dtype == np.uint8 else int(frame.max())
    return next(level for level in _WHITES if brightest <= level)


def explain_darkness(brightest: int, white_level: int) -> str | None:
    """Return a sentence if 16-bit values fill so little of the range that the camera may give fewer bits.

    Parameters
    ----------
    brightest
        Largest 16-bit value of some frames; 0 for none.
    white_level
        The value that is taken as white.

    Returns
    -------
    str | None
        What to do; None if the brightest value is a quarter of white or more.
    """
    if not 0 < brightest < white_level / 4:
        return None
    bits = max(9, brightest.bit_length())
    return (
        f"the brightest 16-bit value in the images is {brightest} of {white_level}: if the camera gives {bits} bits, "
        f"give --white-level {2**bits - 1}, or most of the depth is lost"
    )


def measure(prepared: NDArray[np.uint8]) -> tuple[float, float]:
    """Return brightness and sharpness of a model input.

    Brightness is the mean. Sharpness is the standard deviation of the Laplacian (3x3); bad focus, motion blur and a
    dirty or misted lens reduce it.

    Parameters
    ----------
    prepared
        uint8 [height, width, channels].

    Returns
    -------
    tuple[float, float]
        Brightness, 0 to 255, and sharpness, 0 or more.
    """
    edges = cv2.Laplacian(prepared, cv2.CV_16S)
    spread = cv2.meanStdDev(edges)[1]
    return float(np.mean(cv2.mean(prepared)[: prepared.shape[2]])), float(spread.mean())


def span(images: Iterable[NDArray[np.uint8]]) -> Appearance:
    """Return the range of brightness and sharpness of model inputs.

    Parameters
    ----------
    images
        uint8 [height, width, channels], one or more.

    Returns
    -------
    Appearance
        Lowest and highest values.
    """
    brightness, sharpness = np.transpose([measure(image) for image in images])
    return Appearance(
        (float(brightness.min()), float(brightness.max())), (float(sharpness.min()), float(sharpness.max()))
    )
