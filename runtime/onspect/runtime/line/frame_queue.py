"""The bounded queue between the threads that capture and the one that judges; it counts every frame."""

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

Outcome = Literal["judged", "faulted", "empty"]
"""What becomes of a frame that is taken: a verdict, a fault, or no part of its own to judge."""

CAPACITY = 16
"""Frames of one source that wait at most."""


def default_policy(source: Source, *, presence: bool = False) -> Policy:
    """Return the policy that fits a source: files wait, triggered cameras lose nothing, others show the latest.

    presence: whether parts are followed from frame to frame, so that no frame may be dropped.
    """
    if source.can_wait:
        return "wait"
    return "every" if presence or source.patience is None else "latest"


@dataclass(frozen=True)
class FrameCounts:
    """What became of the frames: captured == judged + dropped + faulted + empty + waiting, at every moment."""

    captured: int = 0
    judged: int = 0
    dropped: int = 0
    faulted: int = 0
    waiting: int = 0
    empty: int = 0


@dataclass(frozen=True)
class QueuedFrame:
    """A capture with the number of the source that it came from."""

    source_index: int
    capture: Capture


class FrameQueue:
    """One queue a source, each with its policy; used by many capture threads and one that judges.

    The caller calls `task_done` once for each frame that `take` returned.
    """

    def __init__(self, policies: list[Policy], *, capacity: int = CAPACITY) -> None:
        self._policies = policies
        self._capacity = capacity
        self._queues: list[deque[Capture]] = [deque() for _ in policies]
        self._open = set(range(len(policies)))
        self._changed = threading.Condition()
        self._captured = self._judged = self._dropped = self._faulted = self._waiting = self._empty = 0
        self._last = -1
        self._closed = False

    def put(self, source_index: int, capture: Capture) -> None:
        """Put one capture into its source's queue; the policy ``wait`` waits until there is room."""
        with self._changed:
            if self._closed:
                return
            self._captured += 1
            self._waiting += 1
            queue, policy = self._queues[source_index], self._policies[source_index]
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
                    capture = replace(capture, frame=ImageError(behind, code="overrun"))
            queue.append(capture)
            self._changed.notify_all()

    def take(self, timeout: float) -> QueuedFrame | None:
        """Return the next capture, each source in its turn, or None where none came within so many seconds."""
        with self._changed:
            deadline = time.monotonic() + timeout
            while (source_index := self._next_source()) is None:
                if not self._open or not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return None
            self._last = source_index
            capture = self._queues[source_index].popleft()
            self._changed.notify_all()
            return QueuedFrame(source_index, capture)

    def task_done(self, outcome: Outcome) -> None:
        """Count what became of one capture that was taken."""
        with self._changed:
            self._judged += outcome == "judged"
            self._faulted += outcome == "faulted"
            self._empty += outcome == "empty"
            self._waiting -= 1

    def finish(self, source_index: int) -> None:
        """Say that nothing more comes from a source."""
        with self._changed:
            self._open.discard(source_index)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop accepting frames. Queued frames count as dropped; later frames are ignored."""
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
            return FrameCounts(self._captured, self._judged, self._dropped, self._faulted, self._waiting, self._empty)

    def waiting_sources(self) -> set[int]:
        """Return the indices of the sources of which a capture waits."""
        with self._changed:
            return {source_index for source_index, queue in enumerate(self._queues) if queue}

    def _next_source(self) -> int | None:
        sources = len(self._queues)
        turns = ((self._last + step) % sources for step in range(1, sources + 1))
        return next((source_index for source_index in turns if self._queues[source_index]), None)

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
