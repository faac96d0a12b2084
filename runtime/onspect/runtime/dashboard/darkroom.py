"""JPEG pictures of inspections, made in a thread of their own and only when somebody looks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2

from onspect.runtime.dashboard.archive import REJECTS
from onspect.runtime.dashboard.board import Shown
from onspect.runtime.pictures import draw_view
from onspect.runtime.verdict import Verdict

_LIVE = 960  # pixels of the longest side; a page shows no more, and a large camera's picture would keep a core busy
_KEPT = 640
_PAUSE = 0.2  # seconds between two pictures for the album: where every part is a reject, nobody sees each of them
_QUEUE = 4  # pictures that wait to be made, each with its frame
_QUALITY = 85
_ALBUM = 2 * REJECTS  # a page may still ask for one that it was told of a moment ago


@dataclass(frozen=True)
class Reject:
    """A part that was not ``ok``, with its picture to be; None where there was no frame, or no time for it."""

    number: int
    verdict: Verdict
    picture: Future[bytes] | None


class Darkroom:
    """Makes each picture once, however many clients ask for it, and keeps an album of the last rejects."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="onspect-pictures")
        self._made: dict[bool, tuple[int, Future[bytes]]] = {}
        self._album: deque[Reject] = deque(maxlen=_ALBUM)
        self._kept = -_PAUSE

    def make(self, shown: Shown, *, heat: bool) -> Future[bytes]:
        """Return a picture to be, with heat map and boxes or as the camera saw it; empty where there is no frame.

        Called from the server's one thread only.
        """
        number, picture = self._made.get(heat, (0, None))
        if picture is None or number != shown.number:
            picture = self._worker.submit(_develop, shown, _LIVE, heat)
            self._made[heat] = (shown.number, picture)
        return picture

    def keep(self, shown: Shown) -> None:
        """Put a reject into the album, without its picture where they come faster than five a second."""
        picture = None
        if shown.inspection.frame is not None and shown.came - self._kept >= _PAUSE and self._pending() < _QUEUE:
            self._kept = shown.came
            picture = self._worker.submit(_develop, shown, _KEPT, True)
        self._album.append(Reject(shown.number, shown.inspection.verdict, picture))

    def album(self) -> list[Reject]:
        """Return the last rejects, newest first."""
        return list(reversed(self._album.copy()))[:REJECTS]

    def find(self, number: int) -> Future[bytes] | None:
        """Return a reject's picture to be, None where there is none."""
        return next((reject.picture for reject in self._album.copy() if reject.number == number), None)

    def close(self) -> None:
        """End the thread after the picture that is under way."""
        self._worker.shutdown(cancel_futures=True)

    def _pending(self) -> int:
        return sum(reject.picture is not None and not reject.picture.done() for reject in self._album.copy())


def _develop(shown: Shown, longest: int, heat: bool) -> bytes:
    picture = draw_view(shown.inspection, longest=longest, heat=heat)
    if picture is None:
        return b""
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
