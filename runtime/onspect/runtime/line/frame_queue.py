"""Bounded queue between the threads that capture and the thread that judges; it counts every frame."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Literal

from onspect.runtime.errors import ImageError
from onspect.runtime.records import quick_init
from onspect.runtime.sources.base import Capture, Source

Policy = Literal["latest", "every", "wait"]
"""What happens to frames that come faster than they can be judged.

``latest``: a newer frame replaces the waiting one, which counts as dropped; for a live view.
``every``: up to `CAPACITY` frames wait, and a further one becomes a fault. Each triggered part gets a verdict.
``wait``: the source waits; for files.
"""

Outcome = Literal["judged", "faulted", "empty"]
"""Outcome of a frame: a verdict, a fault, or no part of its own to judge."""

CAPACITY = 16
"""Largest number of waiting frames of one source."""


def default_policy(source: Source, *, presence: bool = False) -> Policy:
    """Return the default policy: files wait, triggered cameras lose nothing, other cameras show the latest frame.

    Parameters
    ----------
    source
        The source.
    presence
        Whether parts are followed from frame to frame, so that no frame may be dropped.

    Returns
    -------
    Policy
        ``wait``, ``every`` or ``latest``.
    """
    if source.can_wait:
        return "wait"
    return "every" if presence or source.patience is None else "latest"


@dataclass(frozen=True)
class FrameCounts:
    """Counts of frames; captured == judged + dropped + faulted + empty + waiting, at every moment."""

    captured: int = 0
    """Frames that the sources gave."""
    judged: int = 0
    """Frames with a verdict of the model."""
    dropped: int = 0
    """Frames that a newer one replaced, or that waited when the line ended."""
    faulted: int = 0
    """Frames that are a fault."""
    waiting: int = 0
    """Frames in the queue or under judgement."""
    empty: int = 0
    """Frames that show no part of their own."""


@quick_init
@dataclass(frozen=True)
class QueuedFrame:
    """A capture and the source that it came from."""

    source_index: int
    """Index of the source, 0 or more."""
    capture: Capture
    """The capture."""


class FrameQueue:
    """One queue for each source, each with its policy; many threads put frames in, one takes them out.

    The caller calls `task_done` once for each frame that `take` returned.

    Parameters
    ----------
    policies
        One policy for each source.
    capacity
        Largest number of waiting frames of one source, 1 or more.
    """

    def __init__(self, policies: list[Policy], *, capacity: int = CAPACITY) -> None:
        self._policies = policies
        self._capacity = capacity
        self._queues: list[deque[Capture]] = [deque() for _ in policies]
        self._open = set(range(len(policies)))
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._last = -1
        self._closed = False

    def put(self, source_index: int, capture: Capture) -> None:
        """Put one capture into the queue of its source; with the policy ``wait`` this waits for room.

        Parameters
        ----------
        source_index
            Index of the source, 0 or more.
        capture
            The capture.
        """
        with self._changed:
            if self._closed:
                return
            self._counts["captured"] += 1
            self._counts["waiting"] += 1
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
                    behind = f"not judged: {len(queue)} frames were already waiting, and no more are allowed"
                    capture = replace(capture, frame=ImageError(behind, code="overrun"))
            queue.append(capture)
            self._changed.notify_all()

    def take(self, timeout: float) -> QueuedFrame | None:
        """Return the next capture; the sources take turns.

        Parameters
        ----------
        timeout
            Seconds to wait for a capture.

        Returns
        -------
        QueuedFrame | None
            The capture, or None if none came in time.
        """
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
        """Count the outcome of one capture that was taken.

        Parameters
        ----------
        outcome
            ``judged``, ``faulted`` or ``empty``.
        """
        with self._changed:
            self._counts[outcome] += 1
            self._counts["waiting"] -= 1

    def finish(self, source_index: int) -> None:
        """Mark a source as finished: it gives no more captures.

        Parameters
        ----------
        source_index
            Index of the source, 0 or more.
        """
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
        """Whether every source is finished and the queue is empty."""
        with self._changed:
            return not self._open and not any(self._queues)

    @property
    def counts(self) -> FrameCounts:
        """The counts of frames until now."""
        with self._changed:
            return FrameCounts(**self._counts)

    def waiting_sources(self) -> set[int]:
        """Return the sources that have a waiting capture.

        Returns
        -------
        set[int]
            Indices of the sources.
        """
        with self._changed:
            return {source_index for source_index, queue in enumerate(self._queues) if queue}

    def _next_source(self) -> int | None:
        sources = len(self._queues)
        turns = ((self._last + step) % sources for step in range(1, sources + 1))
        return next((source_index for source_index in turns if self._queues[source_index]), None)

    def _drop_frames(self, queue: deque[Capture]) -> None:
        """Drop the waiting frames, but no error: a loss must be reported even if newer frames came."""
        if not queue:
            return
        kept = [capture for capture in queue if isinstance(capture.frame, ImageError)][-self._capacity :]
        dropped = len(queue) - len(kept)
        queue.clear()
        queue.extend(kept)
        self._drop(dropped)

    def _drop(self, count: int) -> None:
        self._counts["dropped"] += count
        self._counts["waiting"] -= count
