"""Check before the model: a frame unlike the training images is a fault, never ``ok``."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.quality import measure
from onspect.runtime.model.schema import Appearance
from onspect.runtime.sources.base import FirstSize

BLACK = 12
"""A model input without a pixel brighter than this shows nothing, unless training images were as dark."""

WHITE = 250
"""A model input without a pixel darker than this shows nothing, unless training images were as bright."""


@dataclass(frozen=True)
class Health:
    """What a frame must satisfy to be judged.

    Limits that are None follow from the training images. Brightness: half of the darkest to half way between the
    brightest and white. Sharpness: half of the least sharp. A model file without these values gives no limit.
    """

    brightness: tuple[float, float] | None = None
    """Lowest and highest mean of the model input, 0 to 255."""
    sharpness: float | None = None
    """Lowest sharpness, as `quality.measure` returns it."""
    identical: int = 1
    """Number of equal successors of a frame that is a fault; 1 for the first repetition, 0 for no check, as for some
    compressed streams.
    """
    width: int | None = None
    """Width in pixels; None for every width that the model accepts."""
    height: int | None = None
    """Height in pixels; None for every height that the model accepts."""
    late_ms: float | None = None
    """Longest time from capture to verdict in ms; None for no limit."""


@dataclass(frozen=True)
class Limits:
    """Limits of brightness and sharpness for one model."""

    brightness: tuple[float, float] | None
    """Lowest and highest mean of the model input, 0 to 255; None for no limit."""
    sharpness: float | None
    """Lowest sharpness; None for no limit."""
    black: bool
    """Whether a model input with no pixel above `BLACK` is a fault."""
    white: bool
    """Whether a model input with no pixel below `WHITE` is a fault."""


def limits_for(health: Health, appearance: Appearance | None) -> Limits:
    """Return the limits for one model, from the configuration and the model's training images.

    Parameters
    ----------
    health
        The configured checks.
    appearance
        Brightness and sharpness of the training images; None if the model file has none.

    Returns
    -------
    Limits
        The limits.
    """
    brightness, sharpness = health.brightness, health.sharpness
    if appearance is not None:
        darkest, brightest = appearance.brightness
        brightness = brightness or (darkest / 2, (brightest + 255.0) / 2)
        sharpness = appearance.sharpness[0] / 2 if sharpness is None else sharpness
    return Limits(
        brightness,
        sharpness,
        black=appearance is None or appearance.brightness[0] > BLACK,
        white=appearance is None or appearance.brightness[1] < WHITE,
    )


class FrameCheck:
    """Check the frames of one source in order; the last frame is kept to find a frozen picture.

    Parameters
    ----------
    health
        The checks.
    keeps_size
        Whether all frames must have the size of the first one, as those of a camera.
    """

    def __init__(self, health: Health, *, keeps_size: bool = False) -> None:
        self._health = health
        self._size = FirstSize() if keeps_size else None
        self._previous: Frame | None = None
        self._equal = 0
        self._changed = time.monotonic()

    @property
    def frozen_for(self) -> float:
        """Seconds for which every frame was equal to its predecessor; 0 if the last one was not."""
        return time.monotonic() - self._changed if self._equal else 0.0

    def wait_anew(self) -> None:
        """Restart `frozen_for` at 0; the last frame is kept, because a reopened camera may still show it."""
        self._changed = time.monotonic()

    def watch(self, frame: Frame) -> ImageError | None:
        """Check a frame that may show no part, so it has no model input.

        Parameters
        ----------
        frame
            The frame.

        Returns
        -------
        ImageError | None
            The reason not to use the frame, or None if it can be used.
        """
        return self._find_wrong_size(frame) or self._find_frozen(frame)

    def find_fault(self, frame: Frame, limits: Limits, prepared: NDArray[np.uint8]) -> ImageError | None:
        """Check one frame and the model input made from it.

        Parameters
        ----------
        frame
            The frame.
        limits
            Limits of the model.
        prepared
            The model input, uint8 [height, width, channels].

        Returns
        -------
        ImageError | None
            The reason not to judge the frame, or None if it can be judged.
        """
        if fault := self._find_wrong_size(frame):
            return fault
        if fault := _find_empty(prepared, limits):  # empty pictures are equal even if the camera is not frozen
            self._previous, self._equal = None, 0
            return fault
        return self._find_frozen(frame) or _find_unusual(prepared, limits)

    def _find_wrong_size(self, frame: Frame) -> ImageError | None:
        height, width = frame.shape[:2]
        if self._size is not None and (change := self._size.find_change(width, height)):
            return change
        wanted = (self._health.width or width, self._health.height or height)
        if (width, height) == wanted:
            return None
        words = f"the frame is {width}x{height} pixels, and the configuration says {wanted[0]}x{wanted[1]}"
        return ImageError(words, code="size")

    def _find_frozen(self, frame: Frame) -> ImageError | None:
        same = self._previous is not None and _is_equal(self._previous, frame)
        self._equal = self._equal + 1 if same else 0
        self._previous = frame
        if not same:
            self._changed = time.monotonic()
        if not self._health.identical or self._equal < self._health.identical:
            return None
        frames = f"{self._equal} frame{'s' * (self._equal != 1)}"
        return ImageError(f"the picture does not change: {frames} in a row equal the one before", code="frozen")


def find_picture_fault(limits: Limits, prepared: NDArray[np.uint8]) -> ImageError | None:
    """Check a model input without the frame that it was made from.

    Parameters
    ----------
    limits
        Limits of the model.
    prepared
        The model input, uint8 [height, width, channels].

    Returns
    -------
    ImageError | None
        The reason not to judge the model input, or None if it can be judged.
    """
    return _find_empty(prepared, limits) or _find_unusual(prepared, limits)


def _is_equal(first: Frame, second: Frame) -> bool:
    """Return whether two frames are equal; a few rows decide it in most cases, which is faster."""
    return np.array_equal(first[::32], second[::32]) and np.array_equal(first, second)


def _find_empty(prepared: NDArray[np.uint8], limits: Limits) -> ImageError | None:
    """Return the fault of a picture that is all black or all white; the first row decides most cases."""
    if limits.black and prepared[0].max() <= BLACK and prepared.max() <= BLACK:
        return ImageError(f"the picture is black: no pixel is brighter than {prepared.max()} of 255", code="black")
    if limits.white and prepared[0].min() >= WHITE and prepared.min() >= WHITE:
        words = f"the picture is saturated: no pixel is darker than {prepared.min()} of 255"
        return ImageError(words, code="saturated")
    return None


def _find_unusual(prepared: NDArray[np.uint8], limits: Limits) -> ImageError | None:
    """Return the fault of a picture that is too dark, too bright or blurred."""
    brightness, sharpness = measure(prepared)
    if limits.brightness is not None and not limits.brightness[0] <= brightness <= limits.brightness[1]:
        low, high = limits.brightness
        return ImageError(
            f"the picture's mean brightness is {brightness:.1f}, and {low:.1f} to {high:.1f} is accepted: "
            "check light and exposure",
            code="brightness",
        )
    if limits.sharpness is not None and sharpness < limits.sharpness:
        return ImageError(
            f"the picture is blurred: its sharpness is {sharpness:.2f}, and {limits.sharpness:.2f} or more is "
            "accepted: check focus, dirt and motion",
            code="blurred",
        )
    return None
