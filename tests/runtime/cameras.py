"""A camera whose frames the test shows one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.sources.base import Capture, Source


class FedCamera(Source):
    """A live camera that gives the frames, or errors of frames, which the test shows it."""

    live = True
    can_wait = False

    def __init__(self) -> None:
        super().__init__("cam 1")
        self._frames: list[NDArray[Any] | ImageError] = []
        self._changed = threading.Condition()

    def show(self, frame: NDArray[Any] | ImageError) -> None:
        """Give the line one frame; returns at once."""
        with self._changed:
            self._frames.append(frame)
            self._changed.notify()

    def stop(self) -> None:
        super().stop()
        with self._changed:
            self._changed.notify()

    def __iter__(self) -> Iterator[Capture]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self._stopped.is_set())
                if not self._frames:
                    return
                frame = self._frames.pop(0)
            yield Capture(self.name, frame)
