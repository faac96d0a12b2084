"""A video file as a source."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2

from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.sources import Capture

_LOG = logging.getLogger("onspect")


def read_video(path: Path) -> Iterator[Capture]:
    """Read every frame of a video file (BGR uint8); raises SourceError where it cannot be opened.

    Where the file announces more frames than can be read, the first missing one is a fault and the rest are counted
    in a warning: parts that nobody saw must not look like a video that ended.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise SourceError(f"cannot open {str(path)!r} as a video; give a video file or a folder of images")
    return _frames(path, capture)


def _frames(path: Path, capture: cv2.VideoCapture) -> Iterator[Capture]:
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if announced <= 0:
        _LOG.warning("%s does not say how many frames it has: a missing end would not be noticed", path)
    count = 0
    try:
        while True:
            read, frame = capture.read()
            if not read:
                break
            yield Capture(str(path), frame)
            count += 1
        if count < announced:
            _LOG.warning("%s announces %d frames, and only %d can be read", path, announced, count)
            yield Capture(str(path), ImageError(f"the video ends after {count} of {announced} frames"))
    finally:
        capture.release()
