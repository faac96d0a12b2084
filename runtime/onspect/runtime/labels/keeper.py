"""Store the pictures of rejects and of some good parts, in its own thread."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque

from onspect.runtime.errors import OnspectError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.labels.store import LabelStore, PartKey

_LOG = logging.getLogger("onspect")

_QUEUE = 8  # largest number of waiting pictures, each with its frame
_LOOK = 0.05  # seconds between two checks for waiting pictures
_OK_EVERY = 30.0  # seconds between two kept pictures of ok parts, for the previews
_RECENT_BYTES = 64_000_000
_REMIND_EVERY = 60.0  # seconds between two warnings


class PictureKeeper:
    """Store the picture of each ``ng`` and ``review`` part, and of an ``ok`` part from time to time.

    The last parts of any verdict stay in memory, so that a person can label the part on the screen a few seconds later.

    Parameters
    ----------
    store
        The database.
    ok_every
        Seconds between two pictures of ok parts.
    recent_bytes
        Largest size of the frames in memory, in bytes.
    """

    def __init__(self, store: LabelStore, *, ok_every: float = _OK_EVERY, recent_bytes: int = _RECENT_BYTES) -> None:
        self._store = store
        self._ok_every = ok_every
        self._recent_bytes = recent_bytes
        self._recent: deque[Inspection] = deque()
        self._held = 0
        self._waiting: deque[Inspection] = deque()
        self._ok_due = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_all, name="onspect-labels", daemon=True)
        self._reminded = -_REMIND_EVERY
        self.missed = 0
        """Number of pictures that were not kept: they came too fast, or the disk was full."""

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Write the waiting pictures, and end the thread."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def add(self, inspection: Inspection) -> None:
        """Add an inspection; takes microseconds.

        Parameters
        ----------
        inspection
            The inspection.
        """
        frame, verdict = inspection.frame, inspection.verdict.verdict
        if frame is None or verdict == "fault":
            return
        inspection = dataclasses.replace(inspection, error_map=None)  # the map would keep memory of the model's runtime
        moment = time.monotonic()
        with self._lock:
            self._recent.append(inspection)
            self._held += frame.nbytes
            while self._held > self._recent_bytes and len(self._recent) > 1:
                oldest = self._recent.popleft().frame
                self._held -= 0 if oldest is None else oldest.nbytes
        if verdict == "ok":
            if moment < self._ok_due:
                return
            self._ok_due = moment + self._ok_every
        if len(self._waiting) >= _QUEUE:
            self.missed += 1
            return
        self._waiting.append(inspection)

    def find(self, key: PartKey) -> Inspection | None:
        """Return one of the last parts.

        Parameters
        ----------
        key
            The part.

        Returns
        -------
        Inspection | None
            The inspection; None if it is not in memory any more.
        """
        with self._lock:
            recent = list(self._recent)
        return next((one for one in reversed(recent) if _is(key, PartKey.of(one.verdict))), None)

    def _keep_all(self) -> None:
        while True:
            closing = self._closing.wait(_LOOK)
            while self._waiting:
                inspection = self._waiting.popleft()
                frame = inspection.part_frame
                assert frame is not None
                try:
                    self._store.keep(inspection.verdict, frame)
                except OnspectError as error:
                    self._note_loss(str(error))
            if closing:
                return

    def _note_loss(self, reason: str) -> None:
        self.missed += 1
        if time.monotonic() - self._reminded >= _REMIND_EVERY:
            self._reminded = time.monotonic()
            _LOG.warning("%d pictures are not kept for labels: %s", self.missed, reason)


def _is(asked: PartKey, there: PartKey) -> bool:
    return (asked.time, asked.index) == (there.time, there.index) and there.source.startswith(asked.source)
