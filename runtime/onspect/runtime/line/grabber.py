"""Thread that reads one source; a thread whose read hangs is left behind, and a new one starts."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time

from onspect.runtime.errors import GapError, OnspectError
from onspect.runtime.line.frame_queue import FrameQueue
from onspect.runtime.sources.base import Capture, Source

_LOG = logging.getLogger("onspect")


class Grabber:
    """Read one source into the frame queue, in a thread, until the source ends or is stopped."""

    def __init__(self, source: Source, source_index: int, queue: FrameQueue) -> None:
        self.source = source
        self.error: OnspectError | None = None
        """Why a source that is not live ended early."""
        self._retry = source.retry
        self._source_index = source_index
        self._queue = queue
        self._threads: list[threading.Thread] = []
        self._turn = 0
        self._beat = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start a thread that reads. An earlier thread ends when its read returns."""
        self._turn += 1
        self._beat = time.monotonic()
        name = f"onspect-source-{self._source_index}"
        thread = threading.Thread(target=self._grab, args=(self._turn,), name=name, daemon=True)
        self._threads = [earlier for earlier in self._threads if earlier.is_alive()]
        self._threads.append(thread)
        thread.start()

    def check(self) -> None:
        """Start a new thread if the source has been silent for longer than its patience."""
        patience = self.source.patience
        if patience is None or self._stopped.is_set():
            return
        heard = self._beat
        if not self.source.state().connected:
            heard = max(heard, self.source.tried)
            patience += 2 * self._retry.longest  # the next try comes after a wait; only opening itself may hang
        silent = time.monotonic() - heard
        if silent > patience:
            self.restart(f"{self.source.state().name}: nothing came for {silent:.1f} s, so it is opened again")

    def restart(self, reason: str) -> None:
        """Open the source again, and put a gap with the reason into the queue.

        Parameters
        ----------
        reason
            One sentence for the log and the gap.
        """
        if not self._stopped.is_set():
            _LOG.warning("%s", reason)
            self._queue.put(self._source_index, _stamp(Capture(self.source.state().name, GapError(reason))))
            self.start()

    def stop(self) -> None:
        """Stop the source."""
        self._stopped.set()
        self.source.stop()

    def join(self, timeout: float) -> bool:
        """Wait for the threads to end; a thread that hangs ends with the process.

        Parameters
        ----------
        timeout
            Seconds to wait, for all threads together.

        Returns
        -------
        bool
            Whether all threads have ended.
        """
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._queue.finish(self._source_index)
        return not any(thread.is_alive() for thread in self._threads)

    def _grab(self, turn: int) -> None:
        while True:
            error = self._read(turn)
            if turn != self._turn:
                return
            if error is None or not self.source.live or self._stopped.is_set():
                self.error = error
                self._queue.finish(self._source_index)
                return
            _LOG.warning("%s", error)
            self._queue.put(self._source_index, _stamp(Capture(self.source.state().name, GapError(str(error)))))
            self._stopped.wait(10 * self._retry.first)

    def _read(self, turn: int) -> OnspectError | None:
        try:
            for capture in self.source:
                if turn != self._turn:
                    return None
                self._beat = time.monotonic()
                self._queue.put(self._source_index, _stamp(capture))
        except OnspectError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a camera's driver may raise anything, and the line must continue
            return GapError(f"{self.source.state().name}: {type(error).__name__}: {error}")
        return None


def _stamp(capture: Capture) -> Capture:
    if capture.captured is not None:
        return capture
    return dataclasses.replace(capture, captured=time.perf_counter())
