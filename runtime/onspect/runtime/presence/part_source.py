"""A source of parts: the crop of each part that passes a free-running camera, once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Self

from onspect.runtime.errors import ImageError
from onspect.runtime.presence.gate import FILE_RATE, HeldFrame, PresenceGate, Step
from onspect.runtime.presence.settings import PresenceSettings
from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.status import SourceState


class PartSource(Source):
    """Give one capture for each part, as a line with these settings judges it.

    A part that cannot be judged is an ImageError with the reason.

    Parameters
    ----------
    source
        The camera.
    settings
        The known settings; the others are learnt.
    """

    def __init__(self, source: Source, settings: PresenceSettings) -> None:
        super().__init__(source.name)
        self.live, self.can_wait = source.live, source.can_wait
        self._source = source
        self._gate = PresenceGate(settings, live=source.live)

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.__exit__(*exception)
        super().__exit__(*exception)

    def __iter__(self) -> Iterator[Capture]:
        """Yield the crops in the order in which their parts are decided."""
        for number, capture in enumerate(self._source, 1):
            since = capture.captured if self.live else number / FILE_RATE
            held = HeldFrame(capture, time.perf_counter() if since is None else since)
            yield from _cut(self._gate.feed(held))
        yield from _cut(self._gate.flush())

    def state(self) -> SourceState:
        """Return the state of the camera, and whether the line is being learnt.

        Returns
        -------
        SourceState
            The state.
        """
        state = self._source.state()
        if self._gate.learning and not state.message:
            return dataclasses.replace(state, message="the line is being learnt: let parts pass by")
        return state

    def stop(self) -> None:
        """Stop the camera."""
        self._source.stop()
        super().stop()


def _cut(step: Step) -> Iterator[Capture]:
    for view in step.views:
        capture = dataclasses.replace(view.held.capture, part=view.part)
        frame = capture.frame
        if view.window is None or isinstance(frame, ImageError):
            frame = ImageError(f"part {view.part or '-'}: {view.reason or 'there is no part in the frame'}")
        else:
            x, y, width, height = view.window
            frame = frame[y : y + height, x : x + width]
        yield dataclasses.replace(capture, frame=frame)
