"""The frame queue under any order of calls: captured == judged + dropped + faults + waiting, always."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from onspect.runtime.errors import ImageError
from onspect.runtime.line.frame_queue import FrameCounts, FrameQueue, Policy
from onspect.runtime.sources.base import Capture

POLICIES: list[Policy] = ["latest", "every", "wait"]
GREY = np.zeros((1, 1), np.uint8)


class FrameQueues(RuleBasedStateMachine):
    """Compares the queue with plain lists."""

    @initialize(policies=st.lists(st.sampled_from(POLICIES), min_size=1, max_size=3), capacity=st.integers(1, 3))
    def begin(self, policies: list[Policy], capacity: int) -> None:
        self.frame_queue = FrameQueue(policies, capacity=capacity)
        self.policies, self.capacity = policies, capacity
        self.numbers = itertools.count()
        self.queues: list[list[tuple[str, bool]]] = [[] for _ in policies]  # name, and whether it is an error
        self.in_hand: str | None = None
        self.captured = self.judged = self.faulted = self.dropped = 0
        self.finished: set[int] = set()
        self.closed = False

    @rule(data=st.data(), error=st.booleans())
    def put(self, data: st.DataObject, error: bool) -> None:
        """Capture a frame, unless it would have to wait."""
        source_index = data.draw(st.integers(0, len(self.policies) - 1))
        queue, policy = self.queues[source_index], self.policies[source_index]
        full = len(queue) >= self.capacity
        if policy == "wait" and full and not self.closed:
            return
        name = str(next(self.numbers))
        self.frame_queue.put(source_index, Capture(name, ImageError("torn") if error else GREY))
        if self.closed:
            return
        self.captured += 1
        if policy == "latest":
            kept = [item for item in queue if item[1]][-self.capacity :]
            self.dropped += len(queue) - len(kept)
            queue[:] = kept
        queue.append((name, error or (policy == "every" and full)))

    @precondition(lambda self: self.in_hand is None)
    @rule()
    def take(self) -> None:
        """Take a frame: it is the oldest of its source, and there is one wherever one waits."""
        taken = self.frame_queue.take(0.0)
        assert (taken is None) == (not any(self.queues))
        if taken is not None:
            name, error = self.queues[taken.source_index].pop(0)
            assert taken.capture.source == name
            assert isinstance(taken.capture.frame, ImageError) == error
            self.in_hand = name

    @precondition(lambda self: self.in_hand is not None)
    @rule(judged=st.booleans())
    def task_done(self, judged: bool) -> None:
        """Count the taken frames."""
        self.frame_queue.task_done("judged" if judged else "faulted")
        self.judged += judged
        self.faulted += not judged
        self.in_hand = None

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """End a source."""
        source_index = data.draw(st.integers(0, len(self.policies) - 1))
        self.frame_queue.finish(source_index)
        self.finished.add(source_index)

    @rule()
    def close(self) -> None:
        """End the line: what waits is dropped."""
        self.frame_queue.close()
        self.dropped += sum(map(len, self.queues))
        self.queues = [[] for _ in self.policies]
        self.closed = True

    @invariant()
    def every_frame_is_counted(self) -> None:
        """The counts add up and equal those of the lists, also for waiting and finished frames."""
        waiting = sum(map(len, self.queues)) + (self.in_hand is not None)
        counts = self.frame_queue.counts
        assert counts == FrameCounts(self.captured, self.judged, self.dropped, self.faulted, waiting)
        assert counts.captured == counts.judged + counts.dropped + counts.faulted + counts.waiting
        assert self.frame_queue.waiting_sources() == {
            source_index for source_index, queue in enumerate(self.queues) if queue
        }
        assert self.frame_queue.done == (len(self.finished) == len(self.policies) and not any(self.queues))

    def teardown(self) -> None:
        """At the end nothing waits: captured == judged + dropped + faults."""
        self.frame_queue.close()
        if self.in_hand is not None:
            self.frame_queue.task_done("judged")
        counts = self.frame_queue.counts
        assert counts.waiting == 0
        assert counts.captured == counts.judged + counts.dropped + counts.faulted


TestFrameQueues = FrameQueues.TestCase


@pytest.mark.parametrize("policy", POLICIES)
@given(count=st.integers(0, 40), capacity=st.integers(1, 3), stop_after=st.none() | st.integers(0, 20))
def test_a_source_s_thread_loses_no_frame_uncounted(
    policy: Policy, count: int, capacity: int, stop_after: int | None
) -> None:
    """With a thread that captures, and a line that may stop early, frames come in order and each is accounted for."""
    frame_queue = FrameQueue([policy], capacity=capacity)

    def capture() -> None:
        for number in range(count):
            frame_queue.put(0, Capture(str(number), GREY))
        frame_queue.finish(0)

    thread = threading.Thread(target=capture)
    thread.start()
    seen: list[int] = []
    while not frame_queue.done and len(seen) != stop_after:
        if (taken := frame_queue.take(10.0)) is not None:
            seen.append(int(taken.capture.source))
            frame_queue.task_done("faulted" if isinstance(taken.capture.frame, ImageError) else "judged")
    frame_queue.close()
    thread.join()
    counts = frame_queue.counts
    assert seen == sorted(set(seen))
    assert counts.captured == counts.judged + counts.dropped + counts.faulted
    assert (counts.judged + counts.faulted, counts.waiting) == (len(seen), 0)
    if stop_after is None and policy != "latest":
        assert seen == list(range(count))
