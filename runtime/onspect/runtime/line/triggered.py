"""A camera that a PLC triggers: one part for each trigger, and no part between triggers."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator

from onspect.runtime.errors import GapError, ImageError
from onspect.runtime.line.frame_queue import FrameQueue
from onspect.runtime.line.grabber import Grabber
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.signals.handshake import Ticket
from onspect.runtime.sources.base import Capture, Source, SourceAround

_LOOK_S = 0.1  # seconds between two checks of the camera while no trigger comes


class TriggeredSource(SourceAround):
    """Give the captures of a camera for each trigger, with the part id, the recipe and the ticket of the trigger.

    A free-running camera is read all the time: the first frame after the trigger is taken, and frames between the parts
    are ignored. A source that can wait (a folder, a camera with software trigger) is read only after a trigger. Every
    trigger gives all of its captures: an ImageError replaces a frame that did not come.

    Parameters
    ----------
    source
        The camera.
    signals
        The PLC.
    camera
        Index of the camera, 0 or more.
    frames
        Captures for each trigger, 1 or more.
    early
        Seconds that a frame of a hardware trigger may come before the signal is read.
    """

    def __init__(
        self, source: Source, signals: SignalController, camera: int, *, frames: int = 1, early: float = 0.2
    ) -> None:
        super().__init__(source)
        self._signals = signals
        self._camera = camera
        self._frames = frames
        self._held: deque[Capture] = deque()
        self._early = early if source.patience is None else 0.0

    def __iter__(self) -> Iterator[Capture]:
        """Yield the captures of each trigger, and a GapError if the camera is lost in between."""
        return self._pull() if self._source.can_wait else self._pick()

    def stop(self) -> None:
        """Accept no more triggers, and end after the current part."""
        self._signals.retire()
        super().stop()
        if self._source.can_wait:
            self._source.stop()

    def task_done(self, capture: Capture) -> None:
        """Tell the camera that a capture was judged.

        Parameters
        ----------
        capture
            The capture.
        """
        self._source.task_done(capture)

    def _tickets(self) -> Iterator[Ticket | None]:
        """Yield each trigger, and None from time to time if there is none; end after the last one."""
        while True:
            stopped = self._stopped.is_set()
            ticket = self._signals.next_ticket(self._camera, 0.0 if stopped else _LOOK_S)
            if ticket is None and (stopped or self._signals.retired):
                return
            yield ticket

    def _pull(self) -> Iterator[Capture]:
        """Read a source that can wait only once a trigger has come; a camera is also read until it is connected."""
        captures = iter(self._source)
        for ticket in self._tickets():
            if ticket is None:
                if self.live and not self._source.state().connected:
                    capture = next(captures, None)
                    if capture is not None and isinstance(capture.frame, GapError):
                        yield capture
                continue
            for number in range(self._frames):
                capture = self._pull_one(captures, ticket)
                if capture is None:
                    yield from self._fill(ticket, number, "the source has no more images")
                    self._signals.retire()
                    return
                yield self._name(capture, ticket)

    def _pull_one(self, captures: Iterator[Capture], ticket: Ticket) -> Capture | None:
        """Return the next capture that is not older than the trigger; images of files have no age."""
        since = _since(ticket)
        for capture in captures:
            if not self.live:
                return dataclasses.replace(capture, captured=time.perf_counter())
            if capture.captured is None or capture.captured >= since:
                return capture
        return None

    def _pick(self) -> Iterator[Capture]:
        """Pick frames of a free-running camera."""
        frames = FrameQueue(["every" if self._early else "latest"])
        grabber = Grabber(self._source, 0, frames)
        grabber.start()
        try:
            for ticket in self._tickets():
                grabber.check()
                if ticket is None:
                    yield from self._skip(frames)
                else:
                    yield from self._pick_part(ticket, frames, grabber)
        finally:
            grabber.stop()
            grabber.join(1.0)
            frames.close()

    def _skip(self, frames: FrameQueue) -> Iterator[Capture]:
        """Ignore frames without a trigger, but report a lost camera and a part without a trigger.

        A frame of a hardware trigger may come before its signal, so it is kept for a while.
        """
        while (capture := frames.take(0.0)) is not None:
            frames.task_done("judged")
            self._held.append(capture.capture)
        oldest = time.perf_counter() - self._early
        while self._held and (self._held[0].captured or 0.0) < oldest:
            yield from self._leave_out(self._held.popleft())

    def _leave_out(self, capture: Capture) -> Iterator[Capture]:
        if isinstance(capture.frame, GapError):
            yield capture
        elif self._early:
            reason = "the camera sent a frame without a trigger of the PLC"
            yield dataclasses.replace(capture, frame=GapError(reason))

    def _pick_part(self, ticket: Ticket, frames: FrameQueue, grabber: Grabber) -> Iterator[Capture]:
        since = _since(ticket) - self._early
        for number in range(self._frames):
            while True:
                if not self._signals.is_open(ticket):
                    yield from self._fill(ticket, number, "no frame of the camera came in time after the trigger")
                    return
                grabber.check()
                capture = self._next(frames)
                if capture is None:
                    continue
                if (capture.captured or 0.0) >= since or isinstance(capture.frame, GapError):
                    break  # a loss just before the trigger makes this part a fault
                yield from self._leave_out(capture)
            yield self._name(capture, ticket)

    def _next(self, frames: FrameQueue) -> Capture | None:
        if self._held:
            return self._held.popleft()
        taken = frames.take(_LOOK_S / 10)
        if taken is None:
            return None
        frames.task_done("judged")
        return taken.capture

    def _fill(self, ticket: Ticket, first: int, reason: str) -> Iterator[Capture]:
        for _ in range(first, self._frames):
            yield self._name(
                Capture(self.name, ImageError(reason, code="incomplete"), captured=time.perf_counter()), ticket
            )

    @staticmethod
    def _name(capture: Capture, ticket: Ticket) -> Capture:
        frame = capture.frame
        # a fault of this part, not a gap between parts: the trigger has counted the part
        if isinstance(frame, GapError):
            frame = ImageError(str(frame), code=frame.code)
        return dataclasses.replace(
            capture,
            frame=frame,
            part=ticket.part if ticket.part is not None else capture.part,
            recipe=ticket.recipe or capture.recipe,
            ticket=ticket.number,
        )


def _since(ticket: Ticket) -> float:
    """Return the time of a trigger on the clock of captures."""
    return time.perf_counter() - (time.monotonic() - ticket.opened)
