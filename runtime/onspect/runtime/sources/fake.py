"""A camera that plays a script, with the faults of real ones; for tests of programs that use a line."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal, Self

import cv2
import numpy as np

from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.images.decode import Frame
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.reopen import LiveSource

FakeFaultKind = Literal["black", "white", "blurred", "frozen", "small", "corrupt", "gap", "lost", "hang"]


@dataclass(frozen=True)
class FakeFault:
    """A fault of a `FakeSource` that begins at one frame."""

    kind: FakeFaultKind
    """For `frames` frames: ``black``, ``white``, ``blurred``, ``frozen`` (equal to the one before), ``small`` (half the
    size) or ``corrupt`` (an ImageError). For `seconds`: ``gap`` (no frame), ``lost`` (the device cannot be opened) or
    ``hang`` (the read does not return).
    """
    frames: int = 1
    """Number of frames, 1 or more."""
    seconds: float = math.inf
    """Duration in seconds."""


class FakeSource(LiveSource):
    """A camera whose frame `number`, from 0, is draw(number).

    Parameters
    ----------
    draw
        Returns the frame of a number.
    count
        Number of frames; None for no end.
    rate
        Frames per second; 0 for as fast as the source is read.
    faults
        Faults by the number of the frame at which they begin.
    part
        Returns the part that a frame shows; None for no parts.
    name
        Name in captures and messages.
    patience
        Seconds without a capture after which a read counts as hung; None for no limit.
    retry
        Pauses before it is opened again after a loss.

    Examples
    --------
        FakeSource(lambda number: image, count=300, faults={30: FakeFault("black"), 60: FakeFault("lost", seconds=2)})
    """

    def __init__(
        self,
        draw: Callable[[int], Frame],
        *,
        count: int | None = None,
        rate: float = 30.0,
        faults: Mapping[int, FakeFault] | None = None,
        part: Callable[[int], str] | None = None,
        name: str = "fake",
        patience: float | None = 5.0,
        retry: Retry = Retry(first=0.01, longest=0.05),
    ) -> None:
        self._script = _Script(self, draw, count, rate, dict(faults or {}), part)
        super().__init__(name, self._script.open, patience=patience, retry=retry)

    def inject(self, fault: FakeFault) -> None:
        """Begin a fault at the next frame; may be called from any thread.

        Parameters
        ----------
        fault
            The fault.
        """
        self._script.injected.put(fault)

    def wait(self, seconds: float) -> None:
        """Wait until the time has passed or the source is stopped.

        Parameters
        ----------
        seconds
            Time in seconds; infinity to wait until it is stopped.
        """
        self._stopped.wait(None if math.isinf(seconds) else max(0.0, seconds))


@dataclass(eq=False)
class _Script:
    """The device; a reopened one is the same object, so that no frame repeats."""

    source: FakeSource
    draw: Callable[[int], Frame]
    count: int | None
    rate: float
    faults: dict[int, FakeFault]
    part: Callable[[int], str] | None
    injected: SimpleQueue[FakeFault] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self._number = 0
        self._due = -math.inf  # the first frame is due at once, also on a machine that has just started
        self._gone_until = 0.0
        self._previous: Frame | None = None
        self._spoilt: tuple[FakeFault, int] | None = None
        self._lock = threading.Lock()

    def open(self) -> Self:
        if time.monotonic() < self._gone_until:
            raise SourceError(f"cannot open the camera {self.source.name!r}: it is not there")
        return self

    def close(self) -> None:
        """Nothing to close."""

    def read(self) -> Capture | None:
        fault = self._next_fault()
        if fault is not None and fault.kind in ("gap", "lost", "hang"):
            self._interrupt(fault)
            return None
        with self._lock:
            if self._number == self.count:
                self.source.stop()
                return None
            number = self._number
            self._number += 1
        self._pace()
        frame = self._spoil(number, fault)
        part = None if self.part is None else self.part(number)
        return Capture(self.source.name, frame, captured=time.perf_counter(), part=part)

    def _next_fault(self) -> FakeFault | None:
        with suppress(Empty):
            return self.injected.get_nowait()
        return self.faults.pop(self._number, None)

    def _interrupt(self, fault: FakeFault) -> None:
        if fault.kind == "lost":
            self._gone_until = time.monotonic() + fault.seconds
            raise SourceError(f"the camera {self.source.name!r} is lost")
        self.source.wait(fault.seconds)

    def _pace(self) -> None:
        self._due = max(self._due + (1.0 / self.rate if self.rate else 0.0), time.perf_counter())
        self.source.wait(self._due - time.perf_counter())

    def _spoil(self, number: int, fault: FakeFault | None) -> Frame | ImageError:
        if fault is not None:
            self._spoilt = (fault, number + fault.frames)
        drawn = self.draw(number)
        spoilt = self._spoilt is not None and number < self._spoilt[1]
        frame = _spoil_frame(self._spoilt[0].kind, drawn, self._previous) if spoilt and self._spoilt else drawn
        if not isinstance(frame, ImageError):
            self._previous = frame
        return frame


def _spoil_frame(kind: str, frame: Frame, previous: Frame | None) -> Frame | ImageError:
    if kind == "black":
        return np.zeros_like(frame)
    if kind == "white":
        return np.full_like(frame, np.iinfo(frame.dtype).max)
    if kind == "blurred":
        return cv2.GaussianBlur(frame, (0, 0), 8.0)
    if kind == "frozen" and previous is not None:
        return previous.copy()
    if kind == "small":
        return frame[::2, ::2].copy()
    return ImageError("the frame came damaged")
