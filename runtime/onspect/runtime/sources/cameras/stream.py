"""Network stream through PyAV, which gives the size of each frame and whether it is complete."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from onspect.runtime.credentials import redact
from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.sources.base import Capture, FirstSize

_OPTIONS = {"rtsp_transport": "tcp"}  # as OpenCV asks for: over UDP, lost packets smear the picture


class DecodedStream:
    """An open stream; frames are BGR uint8.

    Parameters
    ----------
    name
        Name in captures and messages.
    url
        The URL.
    timeouts
        Seconds for opening the stream, and for one read.
    size
        The size of the first frame. The source keeps it, so that a camera that returns with another size is noticed.

    Raises
    ------
    SourceError
        If the stream cannot be opened.
    """

    def __init__(self, name: str, url: str, timeouts: tuple[float, float], size: FirstSize) -> None:
        import av

        self._name = name
        self._timeout = timeouts[1]
        self._size = size
        try:
            self._container: Any = av.open(url, options=_OPTIONS, timeout=timeouts, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"cannot open {name}: it is not there, does not answer, or refuses the password ({redact(str(error))})"
            ) from None
        self._frames = self._decode()

    def read(self) -> Capture:
        """Return the next frame.

        Returns
        -------
        Capture
            The capture; a damaged frame or one of another size is an ImageError.

        Raises
        ------
        SourceError
            If the stream has ended or is frozen.
        """
        import av

        started = time.perf_counter()
        try:
            frame = next(self._frames, None)
        except (av.error.FFmpegError, OSError) as error:
            self._refuse_stalled(started)
            raise SourceError(f"{self._name} has stopped sending: {redact(str(error))}") from None
        if frame is None:
            raise SourceError(f"{self._name} has stopped sending")
        self._refuse_stalled(started)  # this would be an old picture that the decoder still had
        captured = time.perf_counter()
        change = self._size.find_change(frame.width, frame.height)
        if change is not None:
            return Capture(self._name, change, captured=captured)
        if frame.is_corrupt:
            return Capture(self._name, ImageError("the frame came damaged"), captured=captured)
        return Capture(self._name, np.ascontiguousarray(frame.to_ndarray(format="bgr24")), captured=captured)

    def _refuse_stalled(self, started: float) -> None:
        waited = time.perf_counter() - started
        if waited >= 0.95 * self._timeout:
            raise SourceError(f"{self._name} is frozen: nothing new came for {waited:.1f} s")

    def close(self) -> None:
        """Close the connection."""
        with suppress(Exception):  # an error of a connection that is already cut does not matter
            self._container.close()

    def _decode(self) -> Iterator[Any]:
        import av

        if not self._container.streams.video:
            raise SourceError(f"{self._name} sends no video")
        stream = self._container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for packet in self._container.demux(stream):
            try:
                yield from packet.decode()
            # the stream was joined within a group of pictures; the next key frame repairs it
            except av.error.InvalidDataError:
                continue
