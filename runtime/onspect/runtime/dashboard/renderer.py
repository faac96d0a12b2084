"""JPEG pictures of inspections, rendered in their own threads: live ones on demand, and those of rejects."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from onspect.runtime.dashboard.history import FAULTS, REJECTS, pick_rejects
from onspect.runtime.dashboard.screen import LONGEST, to_jpeg
from onspect.runtime.dashboard.state import DisplayedInspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.inspection.visualization import draw_view

_KEPT = 640
_PAUSE = 0.2  # seconds between two cached pictures of rejects: nobody can look at more
_LOOK = 0.1  # seconds between two checks for waiting pictures
_QUEUE = 4  # largest number of waiting pictures, each with its frame
_KEPT_REJECTS = 2 * REJECTS  # a page may still ask for a picture of its last list


@dataclass(frozen=True)
class Reject:
    """A part that was not ``ok``."""

    number: int
    """Number of the inspection, 1 or more."""
    verdict: Verdict
    """The verdict."""
    picture: Future[bytes] | None
    """The JPEG picture; None if there was no frame or no time to render it."""


class RenderWorker:
    """Render each picture once for all clients, and keep the pictures of the last rejects."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="onspect-pictures")
        self._made: dict[bool, tuple[int, Future[bytes]]] = {}
        self._rejects: deque[Reject] = deque(maxlen=_KEPT_REJECTS)
        self._faults: deque[Reject] = deque(maxlen=2 * FAULTS)
        self._unrendered: deque[tuple[DisplayedInspection, Future[bytes]]] = deque()
        self._kept = -_PAUSE
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._render_rejects, name="onspect-rejects", daemon=True)

    def open(self) -> None:
        """Start the thread that renders the pictures of rejects."""
        self._keeper.start()

    def make(self, shown: DisplayedInspection, *, heat: bool) -> Future[bytes]:
        """Render a picture; called in the server's one thread only.

        Parameters
        ----------
        shown
            The inspection.
        heat
            Whether heat map and boxes are drawn.

        Returns
        -------
        Future[bytes]
            The JPEG picture; empty if there is no frame.
        """
        number, picture = self._made.get(heat, (0, None))
        if picture is None or number != shown.number:
            picture = self._worker.submit(_render, shown, LONGEST, heat)
            self._made[heat] = (shown.number, picture)
        return picture

    def keep(self, shown: DisplayedInspection) -> None:
        """Add a reject to the cache, without its picture if rejects come faster than five a second.

        Called by the line. It wakes no other thread, which could block the interpreter for milliseconds.

        Parameters
        ----------
        shown
            The inspection.
        """
        picture: Future[bytes] | None = None
        there = shown.inspection.frame is not None
        if there and shown.came - self._kept >= _PAUSE and len(self._unrendered) < _QUEUE:
            self._kept = shown.came
            picture = Future()
            self._unrendered.append((shown, picture))
        verdict = shown.inspection.verdict
        kept_pictures = self._faults if verdict.verdict == "fault" else self._rejects
        kept_pictures.append(Reject(shown.number, verdict, picture))

    def reject_cache(self) -> list[Reject]:
        """Return the last rejects.

        Returns
        -------
        list[Reject]
            The rejects, newest first.
        """
        kept = [*self._rejects.copy(), *self._faults.copy()]
        return pick_rejects(kept, lambda reject: (reject.number, reject.verdict.verdict))

    def find(self, number: int) -> Future[bytes] | None:
        """Return the picture of a reject.

        Parameters
        ----------
        number
            Number of the inspection.

        Returns
        -------
        Future[bytes] | None
            The JPEG picture; None if there is none.
        """
        return next(
            (reject.picture for reject in [*self._rejects.copy(), *self._faults.copy()] if reject.number == number),
            None,
        )

    def close(self) -> None:
        """End the threads after the current pictures."""
        self._closing.set()
        self._worker.shutdown(cancel_futures=True)
        if self._keeper.ident is not None:
            self._keeper.join()
        for _, picture in self._unrendered:
            picture.cancel()

    def _render_rejects(self) -> None:
        while not self._closing.wait(_LOOK):
            while self._unrendered and not self._closing.is_set():
                shown, picture = self._unrendered[0]
                try:
                    picture.set_result(_render(shown, _KEPT, heat=True))
                except Exception as error:  # noqa: BLE001 - the request for the picture gets the error; the next pictures are still rendered
                    picture.set_exception(error)
                self._unrendered.popleft()


def _render(shown: DisplayedInspection, longest: int, heat: bool) -> bytes:
    picture = draw_view(shown.inspection, longest=longest, heat=heat)
    return b"" if picture is None else to_jpeg(picture)
