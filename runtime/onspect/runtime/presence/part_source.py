"""A source of parts: the crop of each part that passes a free-running camera, once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

from onspect.runtime.errors import ImageError
from onspect.runtime.presence.gate import PresenceGate, Step, hold
from onspect.runtime.presence.settings import PresenceSettings
from onspect.runtime.sources.base import Capture, Source, SourceAround
from onspect.runtime.status import SourceState


class PartSource(SourceAround):
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
        super().__init__(source)
        self._gate = PresenceGate(settings, live=source.live)

    def __iter__(self) -> Iterator[Capture]:
        """Yield the crops in the order in which their parts are decided."""
        for number, capture in enumerate(self._source, 1):
            if self.live and capture.captured is None:
                capture = dataclasses.replace(capture, captured=time.perf_counter())
            yield from _cut(self._gate.feed(hold(capture, number, live=self.live)))
        yield from _cut(self._gate.flush())

    def state(self) -> SourceState:
        """Return the state of the camera, and whether the line is being learnt.

        Returns
        -------
        SourceState
            The state.
        """
        state = super().state()
        if self._gate.learning and not state.message:
            return dataclasses.replace(state, message="the line is being learnt: let parts pass by")
        return state

    def stop(self) -> None:
        """Stop the camera."""
        self._source.stop()
        super().stop()


def _cut(step: Step) -> Iterator[Capture]:
    for view in step.views:
        frame = view.crop()
        if isinstance(frame, ImageError):
            frame = ImageError(f"part {view.part or '-'}: {frame}")
        yield dataclasses.replace(view.held.capture, part=view.part, frame=frame)
