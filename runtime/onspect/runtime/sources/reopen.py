"""Sources that are lost and found again: what every camera shares."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, Self

from onspect.runtime.credentials import redact
from onspect.runtime.errors import GapError, SourceError
from onspect.runtime.sources.base import Capture
from onspect.runtime.status import SourceState

_LOG = logging.getLogger("onspect")


@dataclass(frozen=True)
class Retry:
    """The pauses before a lost source is opened again: each is twice as long as the one before, half of it by chance.

    By chance, so that a hundred cameras behind one switch do not come back at one moment.
    """

    first: float = 0.5
    """Seconds before the first try, at most."""

    longest: float = 30.0
    """Seconds between two tries at most, however long a source is away."""

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait before each try."""
        pause = self.first
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret hangs on it
            pause = min(2 * pause, self.longest)


class Device(Protocol):
    """An open camera; used by one thread, from opening to closing."""

    def read(self) -> Capture | None:
        """Return the next capture, or None where there is none yet, at least once a second.

        Each frame is an array of its own, never a view of a buffer that the next frame overwrites. A frame that came
        damaged is a capture with an ImageError. Raises SourceError where the device is lost.
        """
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class LiveSource:
    """A camera that is opened again, for ever, where it is lost; its loss is one capture with a GapError.

    name: as captures, states and messages call it; passwords in it are hidden. open_device: opens it, raising
    SourceError where it is not there. patience: seconds without a capture after which a read counts as hung, None for
    a triggered camera, which may be silent for as long as it likes. retry: the pauses before it is opened again.
    """

    live = True
    can_wait = False

    def __init__(
        self, name: str, open_device: Callable[[], Device], *, patience: float | None, retry: Retry = Retry()
    ) -> None:
        self.name = redact(name)
        self.patience = patience
        self.retry = retry
        self._open_device = open_device
        self._stopped = threading.Event()
        self._turns = itertools.count(1)
        self._turn = 0
        self._state = SourceState(self.name, connected=False, message="not opened yet")
        self._opened_before = False
        self.tried = 0.0
        """When it was last tried to open it, on `time.monotonic`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def state(self) -> SourceState:
        """Return whether the camera is there, how often it was opened again, and what went wrong last."""
        return self._state

    def stop(self) -> None:
        """End after the read, or the wait before the next try, that is under way."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Capture]:
        self._turn = mine = next(self._turns)  # an older iterator, stuck in a read, ends when it comes back
        pauses = self.retry.pauses()
        while self._is_on(mine):
            self.tried = time.monotonic()
            try:
                with closing(self._open_device()) as device:
                    for capture in self._read(device, mine):
                        pauses = self.retry.pauses()
                        yield capture
            except SourceError as error:
                if not self._is_on(mine):
                    return
                lost = self._state.connected
                pause = next(pauses)
                message = redact(str(error))
                self._set_state(connected=False, message=message)
                _LOG.warning("%s; trying again in %.1f s", message, pause)
                if lost or not self._opened_before:
                    self._opened_before = True
                    yield Capture(self.name, GapError(message))
                self._stopped.wait(pause)

    def _read(self, device: Device, mine: int) -> Iterator[Capture]:
        first = True
        while self._is_on(mine):
            capture = device.read()
            if not self._is_on(mine):
                return
            if first:
                self._note_opened()
                first = False
            if capture is not None:
                yield capture

    def _note_opened(self) -> None:
        again = self._opened_before
        self._opened_before = True
        if again:
            _LOG.warning("%s is there again", self.name)
        self._state = SourceState(self.name, connected=True, reconnects=self._state.reconnects + again)

    def _set_state(self, *, connected: bool, message: str) -> None:
        self._state = SourceState(self.name, connected, self._state.reconnects, message)

    def _is_on(self, mine: int) -> bool:
        return self._turn == mine and not self._stopped.is_set()
