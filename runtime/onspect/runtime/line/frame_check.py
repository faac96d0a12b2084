"""The check before the model: a frame that shows no part as training saw it is a fault, never ``ok``."""

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
    """What a frame must be to be judged.

    brightness: lowest and highest mean of the model's input, 0 to 255. sharpness: the lowest (`appearance.measure`).
    Where they are None, both follow from the training images: half the darkest, half the way from the brightest to
    white, half the least sharp; a model file without those has no such limits. identical: the frame that is a fault
    among equal ones that follow one another, 1 for the first repetition; 0 lets a picture stand still, as some
    compressed streams do. width, height: in pixels, None for what the model accepts. late_ms: the longest time from
    capture to verdict, None for any.
    """

    brightness: tuple[float, float] | None = None
    sharpness: float | None = None
    identical: int = 1
    width: int | None = None
    height: int | None = None
    late_ms: float | None = None


@dataclass(frozen=True)
class Limits:
    """The limits of brightness and sharpness that hold for one model; None where there is none."""

    brightness: tuple[float, float] | None
    sharpness: float | None
    black: bool
    white: bool


def limits_for(health: Health, appearance: Appearance | None) -> Limits:
    """Return the limits that the configuration and a model's training images give together."""
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
    """Checks the frames of one source, in order; remembers the last one, to know a picture that stands still.

    keeps_size: whether all frames must have the size of the first one, as those of a camera.
    """

    def __init__(self, health: Health, *, keeps_size: bool = False) -> None:
        self._health = health
        self._size = FirstSize() if keeps_size else None
        self._previous: Frame | None = None
        self._equal = 0
        self._changed = time.monotonic()

    @property
    def frozen_for(self) -> float:
        """Seconds for which frames came that were equal to the one before them; 0 where the last one was not."""
        return time.monotonic() - self._changed if self._equal else 0.0

    def wait_anew(self) -> None:
        """Count `frozen_for` from now; the last frame is kept, for a camera that is opened again may show it still."""
        self._changed = time.monotonic()

    def check(self, frame: Frame, limits: Limits, prepared: NDArray[np.uint8]) -> None:
        """Raise ImageError where a frame, or the model input made of it, is not to be judged."""
        self._check_size(frame)
        try:
            _check_empty(prepared, limits)
        except ImageError:  # pictures without anything on them are equal without standing still
            self._previous, self._equal = None, 0
            raise
        self._check_frozen(frame)
        _check_picture(prepared, limits)

    def watch(self, frame: Frame) -> ImageError | None:
        """Return why a frame that may show no part is not to be used; None if it may be. It has no model input."""
        try:
            self._check_size(frame)
            self._check_frozen(frame)
        except ImageError as error:
            return error.with_traceback(None)
        return None

    def find_fault(self, frame: Frame, limits: Limits, prepared: NDArray[np.uint8]) -> ImageError | None:
        """Return the error that `check` raises, None where there is none."""
        try:
            self.check(frame, limits, prepared)
        except ImageError as error:
            return error.with_traceback(None)  # its frames would live as long as it
        return None

    def _check_size(self, frame: Frame) -> None:
        height, width = frame.shape[:2]
        if self._size is not None and (change := self._size.find_change(width, height)) is not None:
            raise change
        wanted = (self._health.width or width, self._health.height or height)
        if (width, height) != wanted:
            raise ImageError(
                f"the frame is {width}x{height} pixels, and the configuration says {wanted[0]}x{wanted[1]}",
                code="size",
            )

    def _check_frozen(self, frame: Frame) -> None:
        same = self._previous is not None and _is_equal(self._previous, frame)
        self._equal = self._equal + 1 if same else 0
        self._previous = frame
        if not same:
            self._changed = time.monotonic()
        if self._health.identical and self._equal >= self._health.identical:
            frames = f"{self._equal} frame{'s' * (self._equal != 1)}"
            raise ImageError(f"the picture does not change: {frames} in a row equal the one before", code="frozen")


def find_picture_fault(limits: Limits, prepared: NDArray[np.uint8]) -> ImageError | None:
    """Return why a model input is not to be judged, None if it may be."""
    try:
        _check_empty(prepared, limits)
        _check_picture(prepared, limits)
    except ImageError as error:
        return error.with_traceback(None)
    return None


def _is_equal(first: Frame, second: Frame) -> bool:
    """Tell whether two frames are equal; a few rows settle it for nearly all, at a fraction of the time."""
    return np.array_equal(first[::32], second[::32]) and np.array_equal(first, second)


def _check_empty(prepared: NDArray[np.uint8], limits: Limits) -> None:
    """Raise ImageError for a picture that is all black or all white; most are settled by their first row."""
    if limits.black and prepared[0].max() <= BLACK and prepared.max() <= BLACK:
        raise ImageError(f"the picture is black: no pixel is brighter than {prepared.max()} of 255", code="black")
    if limits.white and prepared[0].min() >= WHITE and prepared.min() >= WHITE:
        raise ImageError(f"the picture is saturated: no pixel is darker than {prepared.min()} of 255", code="saturated")


def _check_picture(prepared: NDArray[np.uint8], limits: Limits) -> None:
    brightness, sharpness = measure(prepared)
    if limits.brightness is not None and not limits.brightness[0] <= brightness <= limits.brightness[1]:
        low, high = limits.brightness
        raise ImageError(
            f"the picture's mean brightness is {brightness:.1f}, and {low:.1f} to {high:.1f} is accepted: "
            "check light and exposure",
            code="brightness",
        )
    if limits.sharpness is not None and sharpness < limits.sharpness:
        raise ImageError(
            f"the picture is blurred: its sharpness is {sharpness:.2f}, and {limits.sharpness:.2f} or more is "
            "accepted: check focus, dirt and motion",
            code="blurred",
        )
