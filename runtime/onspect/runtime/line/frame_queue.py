"""The bounded hand-over from the threads that capture to the one that judges; it counts every frame."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from onspect.runtime.errors import ImageError
from onspect.runtime.sources.base import Capture, Source

Policy = Literal["latest", "every", "wait"]
"""What happens to frames that come faster than they can be judged.

``latest``: a newer frame takes the place of one that still waits, which is counted as dropped; for a live view.
``every``: up to `CAPACITY` frames wait, and one that finds no room becomes a fault; for triggered parts, so that no
part goes by without a verdict. ``wait``: the source waits; for files.
"""

CAPACITY = 16
"""Frames of one source that wait at most."""


def default_policy(source: Source) -> Policy:
    """Return the policy that fits a source: files wait, triggered cameras lose nothing, others show the latest."""
    if source.can_wait:
        return "wait"
    return "every" if source.patience is None else "latest"


@dataclass(frozen=True)
class FrameCounts:
    """What became of the frames: captured == judged + dropped + faulted + waiting, at every moment."""

    captured: int = 0
    judged: int = 0
    dropped: int = 0
    faulted: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Taken:
    """A capture with the number of the source that it came from."""

    lane: int
    capture: Capture


class Handover:
    """One queue a source, each with its policy; used by many capture threads and one that judges.

    Whatever `take` returns is settled once with `settle`, before the next is taken.
    """

    def __init__(self, policies: list[Policy], *, capacity: int = CAPACITY) -> None:
        self._policies = policies
        self._capacity = capacity
        self._queues: list[deque[Capture]] = [deque() for _ in policies]
        self._open = set(range(len(policies)))
        self._changed = threading.Condition()
        self._captured = self._judged = self._dropped = self._faulted = self._waiting = 0
        self._last = -1
        self._closed = False

    def put(self, lane: int, capture: Capture) -> None:
        """Hand over one capture; with the policy ``wait`` this waits until there is room."""
        with self._changed:
            if self._closed:
                return
            self._captured += 1
            self._waiting += 1
            queue, policy = self._queues[lane], self._policies[lane]
            if policy == "latest":
                self._drop_frames(queue)
            elif len(queue) >= self._capacity:
                if policy == "wait":
                    self._changed.wait_for(lambda: len(queue) < self._capacity or self._closed)
                    if self._closed:
                        self._drop(1)
                        return
                else:
                    behind = f"not judged: {len(queue)} frames waited already, which is as many as may"
                    capture = replace(capture, frame=ImageError(behind))
            queue.append(capture)
            self._changed.notify_all()

    def take(self, timeout: float) -> Taken | None:
        """Return the next capture, each source in its turn, or None where none came within so many seconds."""
        with self._changed:
            deadline = time.monotonic() + timeout
            while (lane := self._next_lane()) is None:
                if not self._open or not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return None
            self._last = lane
            capture = self._queues[lane].popleft()
            self._changed.notify_all()
            return Taken(lane, capture)

    def settle(self, *, judged: bool) -> None:
        """Count what became of the capture that was taken last: judged, or a fault."""
        with self._changed:
            self._judged += judged
            self._faulted += not judged
            self._waiting -= 1

    def finish(self, lane: int) -> None:
        """Say that nothing more comes from a source."""
        with self._changed:
            self._open.discard(lane)
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more, for nobody judges any more: what still waits is dropped, and what comes later never was."""
        with self._changed:
            self._closed = True
            for queue in self._queues:
                self._drop(len(queue))
                queue.clear()
            self._changed.notify_all()

    @property
    def done(self) -> bool:
        """Whether every source is finished and nothing waits."""
        with self._changed:
            return not self._open and not any(self._queues)

    @property
    def counts(self) -> FrameCounts:
        """What became of the frames until now."""
        with self._changed:
            return FrameCounts(self._captured, self._judged, self._dropped, self._faulted, self._waiting)

    def waiting_lanes(self) -> set[int]:
        """Return the sources of which a capture waits."""
        with self._changed:
            return {lane for lane, queue in enumerate(self._queues) if queue}

    def _next_lane(self) -> int | None:
        lanes = len(self._queues)
        turns = ((self._last + step) % lanes for step in range(1, lanes + 1))
        return next((lane for lane in turns if self._queues[lane]), None)

    def _drop_frames(self, queue: deque[Capture]) -> None:
        """Drop the frames that wait, but no error: that something was lost must be told whatever comes after."""
        if not queue:
            return
        kept = [capture for capture in queue if isinstance(capture.frame, ImageError)][-self._capacity :]
        dropped = len(queue) - len(kept)
        queue.clear()
        queue.extend(kept)
        self._drop(dropped)

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._waiting -= count
