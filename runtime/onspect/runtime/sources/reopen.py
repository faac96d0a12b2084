"""Sources that are opened again after a loss: the common part of all cameras."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

from onspect.runtime.credentials import redact, show_address
from onspect.runtime.errors import GapError, SourceError
from onspect.runtime.sources.base import Capture, Retry, Source
from onspect.runtime.status import SourceState

_LOG = logging.getLogger("onspect")


class Device(Protocol):
    """An open camera; one thread uses it from opening to closing."""

    def read(self) -> Capture | None:
        """Return the next capture; returns at least once a second.

        Each frame is an array of its own, never a view of a buffer that the next frame overwrites. A damaged frame is a
        capture with an ImageError.

        Returns
        -------
        Capture | None
            The capture, or None if there is none yet.

        Raises
        ------
        SourceError
            If the device is lost.
        """

    def close(self) -> None:
        """Release the device."""


class LiveSource(Source):
    """A camera that is opened again after every loss; a loss is one capture with a GapError.

    Parameters
    ----------
    name
        Name in captures, states and messages; passwords in it are hidden.
    open_device
        Opens the camera; raises SourceError if it is not available.
    patience
        Seconds without a capture after which a read counts as hung. None for a triggered camera, which may be silent.
    retry
        Pauses before it is opened again.
    """

    live = True
    can_wait = False

    def __init__(
        self, name: str, open_device: Callable[[], Device], *, patience: float | None, retry: Retry = Retry()
    ) -> None:
        super().__init__(show_address(name))
        self.patience = patience
        self.retry = retry
        self._open_device = open_device
        self._turns = itertools.count(1)
        self._turn = 0
        self._state = SourceState(self.name, connected=False, message="not opened yet")
        self._opened_before = False

    def state(self) -> SourceState:
        """Return whether the camera is connected, how often it was opened again, and its last error.

        Returns
        -------
        SourceState
            The state.
        """
        return self._state

    def __iter__(self) -> Iterator[Capture]:
        self._turn = mine = next(self._turns)  # an older iterator that hangs in a read ends when the read returns
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
                self._state = SourceState(self.name, False, self._state.reconnects, message)
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

    def _is_on(self, mine: int) -> bool:
        return self._turn == mine and not self._stopped.is_set()
