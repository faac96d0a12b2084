from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from onspect.runtime.errors import GapError, ImageError, SourceError
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.fake import FakeFault, FakeSource
from onspect.runtime.sources.reopen import Device, LiveSource

GREY = np.full((16, 16), 128, np.uint8)


def noisy(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)


def test_a_lost_source_is_opened_again_and_its_loss_is_one_capture() -> None:
    """If a device is lost and twice cannot be opened, one GapError is in the frames' place, and frames continue."""
    source = FakeSource(noisy, count=4, rate=0, faults={2: FakeFault("lost", seconds=0.01)})
    captures = list(source)
    assert [isinstance(capture.frame, GapError) for capture in captures] == [False, False, True, False, False]
    assert "lost" in str(captures[2].frame)
    state = source.state()
    assert (state.connected, state.reconnects) == (True, 1)


def test_a_source_that_was_never_there_says_so_once() -> None:
    """A camera that cannot be opened at first is one GapError and a state, and is tried again until it is stopped."""
    tries = 0

    def never() -> Device:
        nonlocal tries
        tries += 1
        if tries == 4:
            source.stop()
        raise SourceError("camera 7 of rtsp://me:secret@host/x is not there")

    source = LiveSource("rtsp://me:secret@host/x", never, patience=None, retry=Retry(first=0.001))
    captures = list(source)
    assert [(capture.source, type(capture.frame)) for capture in captures] == [("rtsp://***@host/x", GapError)]
    assert tries == 4
    assert not source.state().connected
    assert "secret" not in repr((captures, source.state()))


def test_waits_between_tries_grow_and_differ() -> None:
    """Each wait is between half and all of one that doubles up to the longest."""
    retry = Retry(first=0.5, longest=30.0)
    pauses = list(islice(retry.pauses(), 30))
    assert 0.25 <= pauses[0] <= 0.5
    assert all(pause <= 30.0 for pause in pauses)
    assert pauses[-1] >= 15.0
    assert len(set(pauses)) == 30


def test_iterating_again_ends_an_iterator_that_hangs() -> None:
    """A new iterator continues with the next frame, and the old one, stuck in a read, yields nothing more."""
    source = FakeSource(noisy, count=3, rate=0, faults={1: FakeFault("hang", seconds=0.2)})
    stuck: list[Capture] = []
    thread = threading.Thread(target=lambda: stuck.extend(source))
    thread.start()
    while not stuck:
        time.sleep(0.001)
    later = list(source)
    thread.join()
    assert (len(stuck), len(later)) == (1, 2)


def test_stopping_ends_a_wait() -> None:
    """A source that waits before its next try ends at once when it is stopped."""
    source = FakeSource(noisy, faults={0: FakeFault("lost")}, retry=Retry(first=60.0))
    captures: Iterator[Capture] = iter(source)
    next(captures)
    threading.Timer(0.01, source.stop).start()
    assert list(captures) == []


def test_fake_faults_are_what_they_say() -> None:
    """Each fault of a picture spoils as many frames as it says, and no other."""
    kinds = ("black", "white", "blurred", "frozen", "small", "corrupt")
    faults = {4 * place + 1: FakeFault(kind, frames=2) for place, kind in enumerate(kinds)}
    frames = [capture.frame for capture in FakeSource(noisy, count=24, rate=0, faults=faults)]
    assert frames[1].max() == 0
    assert frames[5].min() == 255
    assert frames[9].std() < 0.2 * noisy(9).std()
    assert np.array_equal(frames[13], noisy(12))
    assert np.array_equal(frames[14], noisy(12))
    assert frames[17].shape == (8, 8)
    assert isinstance(frames[21], ImageError)
    sound = [number for number in range(24) if number % 4 in (0, 3)]
    assert all(np.array_equal(frames[number], noisy(number)) for number in sound)


def test_faults_can_be_injected() -> None:
    """A fault that is injected spoils the next frame."""
    source = FakeSource(noisy, count=3, rate=0)
    captures = iter(source)
    next(captures)
    source.inject(FakeFault("black"))
    assert [capture.frame.max() == 0 for capture in captures] == [True, False]


def test_a_fake_camera_keeps_its_rate() -> None:
    """The first frame comes at once, however short the machine runs; each further one waits until it is due."""
    waits: list[float] = []

    class Patient(FakeSource):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    captures = list(Patient(lambda _: GREY, count=5, rate=1e-9))  # years longer than a machine runs
    assert waits == pytest.approx([0, 1e9, 2e9, 3e9, 4e9], abs=100)
    assert all(capture.captured is not None for capture in captures)
