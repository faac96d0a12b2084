"""A camera that plays a script, with the faults that real ones have; for the tests of whoever builds on a line."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

import cv2
import numpy as np

from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.images.decode import Frame
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.reopen import LiveSource

FakeFaultKind = Literal["black", "white", "blurred", "frozen", "small", "corrupt", "gap", "lost", "hang"]


@dataclass(frozen=True)
class FakeFault:
    """Something that goes wrong with a `FakeSource` at one frame.

    kind: what is wrong with the next `frames` frames: ``black``, ``white``, ``blurred``, ``frozen`` (each is the one
    before), ``small`` (half the size) or ``corrupt`` (an ImageError in its place); or, for `seconds`: ``gap`` (no frame
    comes), ``lost`` (the device is gone and cannot be opened) or ``hang`` (the read does not return).
    """

    kind: FakeFaultKind
    frames: int = 1
    seconds: float = math.inf


class FakeSource(LiveSource):
    """A camera whose frame `number`, from 0, is draw(number), as often a second as `rate` (0: as fast as it is read).

    count: frames after which it ends; None for ever. faults: by the number of the frame at which they begin.
    part: gives the part that a frame shows. retry: the pauses before it is opened again where it is lost, short unless
    others are given.

    Example:
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
        self._script = _Script(draw, count, rate, dict(faults or {}), part, self)
        super().__init__(name, lambda: _FakeDevice(self._script), patience=patience, retry=retry)

    def inject(self, fault: FakeFault) -> None:
        """Let something go wrong from the next frame on; may be called from any thread."""
        self._script.injected.put(fault)

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until the source is stopped."""
        self._stopped.wait(None if math.isinf(seconds) else max(0.0, seconds))


class _Script:
    """What comes next; kept by the source, so that a device that is opened anew goes on where the last one was."""

    def __init__(
        self,
        draw: Callable[[int], Frame],
        count: int | None,
        rate: float,
        faults: dict[int, FakeFault],
        part: Callable[[int], str] | None,
        source: FakeSource,
    ) -> None:
        self.source = source
        self.injected: SimpleQueue[FakeFault] = SimpleQueue()
        self._draw = draw
        self._count = count
        self._interval = 1.0 / rate if rate else 0.0
        self._faults = faults
        self._part = part
        self._number = 0
        self._due = 0.0
        self._gone_until = 0.0
        self._previous: Frame | None = None
        self._spoilt: tuple[FakeFault, int] | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        if time.monotonic() < self._gone_until:
            raise SourceError(f"cannot open the camera {self.source.name!r}: it is not there")

    def read(self) -> Capture | None:
        fault = self._next_fault()
        if fault is not None and fault.kind in ("gap", "lost", "hang"):
            self._interrupt(fault)
            return None
        with self._lock:
            if self._number == self._count:
                self.source.stop()
                return None
            number = self._number
            self._number += 1
        self._pace()
        frame = self._spoil(number, fault)
        part = None if self._part is None else self._part(number)
        return Capture(self.source.name, frame, captured=time.perf_counter(), part=part)

    def _next_fault(self) -> FakeFault | None:
        with suppress(Empty):
            return self.injected.get_nowait()
        return self._faults.pop(self._number, None)

    def _interrupt(self, fault: FakeFault) -> None:
        if fault.kind == "lost":
            self._gone_until = time.monotonic() + fault.seconds
            raise SourceError(f"the camera {self.source.name!r} is lost")
        self.source.wait(fault.seconds)

    def _pace(self) -> None:
        self._due = max(self._due + self._interval, time.perf_counter())
        self.source.wait(self._due - time.perf_counter())

    def _spoil(self, number: int, fault: FakeFault | None) -> Frame | ImageError:
        if fault is not None:
            self._spoilt = (fault, number + fault.frames)
        drawn = self._draw(number)
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


class _FakeDevice:
    def __init__(self, script: _Script) -> None:
        script.open()
        self._script = script

    def read(self) -> Capture | None:
        return self._script.read()

    def close(self) -> None:
        """Nothing is held."""
