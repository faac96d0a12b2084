"""Sharpness and exposure of a frame, for the set-up of a camera, and the search for repeated frames."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.images.decode import Frame
from onspect.runtime.images.quality import find_white_level

_SIDE = 32
"""Number of areas on each side in which frames are compared."""

_LEAST_CHANGE = 4.0
"""Grey levels of 255 by which at least one area must differ; noise and JPEG stay below."""

_USUAL_BRIGHTEST = 200.0
"""Usual brightest area of a frame in grey levels of 255; gives the scale of a 16-bit frame."""

_GAIN = 1.1
"""Ratio of the brightness of two frames up to which they may still repeat each other: lamps flicker."""

_MOST_KNOWN = 1000


@dataclass(frozen=True)
class Exposure:
    """Sharpness and brightness of a frame."""

    sharpness: float
    """Standard deviation of the Laplacian (3x3) in grey levels of 255, 0 or more; compare it between frames only."""

    brightness: float
    """Mean in percent of white, 0 to 100."""

    black: float
    """Share of values that are 0, in percent."""

    white: float
    """Share of values at white, in percent; a frame with many is overexposed."""


class ExposureMeter:
    """Measure frames; at 16 bits, white is the end of the smallest usual bit depth that fits all frames so far."""

    def __init__(self) -> None:
        self._white = 255

    def measure(self, frame: Frame) -> Exposure:
        """Measure a frame.

        Parameters
        ----------
        frame
            HxW or HxWxC, uint8 or uint16.

        Returns
        -------
        Exposure
            Sharpness and brightness.
        """
        if frame.dtype != np.uint8:
            self._white = max(self._white, find_white_level(frame))
        white = 255 if frame.dtype == np.uint8 else self._white
        edges = cv2.meanStdDev(cv2.Laplacian(frame, cv2.CV_16S if frame.dtype == np.uint8 else cv2.CV_32F))[1]
        return Exposure(
            sharpness=float(edges.mean()) * 255.0 / white,
            brightness=100.0 * float(frame.mean()) / white,
            black=100.0 * float(np.mean(frame == 0)),
            white=100.0 * float(np.mean(frame >= white)),
        )


class KnownFrames:
    """The stored frames, for the search for repetitions.

    A perceptual hash is not suitable: it gives almost the same value for different parts of one kind. Here two frames
    repeat each other if no area of a 32nd of the sides differs by more than 4 of 255 grey levels, apart from a common
    brightness.
    """

    def __init__(self) -> None:
        self._known: list[NDArray[np.float32]] = []

    def repeats(self, frame: Frame) -> bool:
        """Return whether a frame repeats one of the last 1,000 that were added.

        Parameters
        ----------
        frame
            HxW or HxWxC, uint8 or uint16.

        Returns
        -------
        bool
            True for a repetition.
        """
        shown = _reduce(frame)
        return any(_is_same(shown, known) for known in reversed(self._known))

    def add(self, frame: Frame) -> None:
        """Add a stored frame.

        Parameters
        ----------
        frame
            HxW or HxWxC, uint8 or uint16.
        """
        self._known.append(_reduce(frame))
        del self._known[:-_MOST_KNOWN]


def _reduce(frame: Frame) -> NDArray[np.float32]:
    """Return the mean of each area, float32 [32, 32, channels], in grey levels of 255 at 8 bits."""
    small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).reshape(_SIDE, _SIDE, -1)
    return np.asarray(small, np.float32)


def _is_same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    if first.shape != second.shape:
        return False
    means = float(first.mean()), float(second.mean())
    gain = means[0] / means[1] if min(means) > 0 else 1.0
    second = second * np.float32(min(max(gain, 1 / _GAIN), _GAIN))
    brightest = float(first.max())
    scale = 1.0 if brightest <= 255.0 else brightest / _USUAL_BRIGHTEST
    return float(np.abs(first - second).max()) <= _LEAST_CHANGE * scale
