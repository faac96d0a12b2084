"""A video file as a source."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2

from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.sources import Capture
from onspect.runtime.sources.finite import FiniteSource

_LOG = logging.getLogger("onspect")


class VideoSource(FiniteSource):
    """Every frame of a video file (BGR uint8); raises SourceError where it cannot be opened.

    Where the file announces more frames than can be read, the first missing one is a fault and the rest are counted
    in a warning: parts that nobody saw must not look like a video that ended.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._open().release()

    def __iter__(self) -> Iterator[Capture]:
        capture = self._open()
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced <= 0:
            _LOG.warning("%s does not say how many frames it has: a missing end would not be noticed", self._path)
        count = 0
        try:
            while not self._stopped.is_set():
                read, frame = capture.read()
                if not read:
                    break
                yield Capture(str(self._path), frame)
                count += 1
            if count < announced and not self._stopped.is_set():
                _LOG.warning("%s announces %d frames, and only %d can be read", self._path, announced, count)
                yield Capture(str(self._path), ImageError(f"the video ends after {count} of {announced} frames"))
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            raise SourceError(f"cannot open {str(self._path)!r} as a video; give a video file or a folder of images")
        return capture
