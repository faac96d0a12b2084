"""Cameras through OpenCV: those of this machine, and network streams."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2

from onspect.runtime.address import parse_place
from onspect.runtime.credentials import show_address
from onspect.runtime.errors import ChoiceError, SourceError
from onspect.runtime.sources.base import Capture, FirstSize, Retry
from onspect.runtime.sources.cameras.stream import DecodedStream
from onspect.runtime.sources.reopen import Device, LiveSource

_LOG = logging.getLogger("onspect")

_OPEN_TIMEOUT = 5.0  # seconds
_READ_TIMEOUT = 5.0  # seconds
_CAMERA_PATIENCE = 15.0  # seconds; a local camera's driver gives up by itself after 10

_PROPERTIES = {
    "width": cv2.CAP_PROP_FRAME_WIDTH,
    "height": cv2.CAP_PROP_FRAME_HEIGHT,
    "rate": cv2.CAP_PROP_FPS,
}
_OPTIONS = {"fourcc": "FOURCC", "width": "PIXELS", "height": "PIXELS", "rate": "FRAMES/S"}


class StreamSource(LiveSource):
    """A network camera by its URL; frames are BGR uint8.

    A broken connection is noticed at once, a frozen one within `read_timeout`. A read that takes as long as its timeout
    returns only an old picture, and the connection never recovers. So a camera with less than one frame in this time
    counts as lost. PyAV (the extra ``video``) reads the stream if it is installed. OpenCV scales a stream whose
    resolution changes to the first one, without notice.

    Parameters
    ----------
    url
        The URL.
    read_timeout
        Longest time for one frame, in seconds.
    retry
        Pauses before it is opened again.
    """

    def __init__(self, url: str, *, read_timeout: float = _READ_TIMEOUT, retry: Retry = Retry()) -> None:
        name, size = show_address(url), FirstSize()

        def open_device() -> Device:
            if find_spec("av") is None:
                return _Device(name, lambda: _open_stream(url, read_timeout), read_timeout)
            return DecodedStream(name, url, (_OPEN_TIMEOUT, read_timeout), size)

        if find_spec("av") is None:
            _LOG.warning("%s: a change of its resolution would not be noticed; install 'onspect[video]'", name)

        super().__init__(name, open_device, patience=3 * read_timeout, retry=retry)


def open_camera(text: str) -> LiveSource:
    """Return a camera of this machine. A camera that refuses a setting counts as lost: its frames would be others.

    Parameters
    ----------
    text
        Number or device path, as in ``0?width=1280&height=720``. Options: ``fourcc`` (such as MJPG, set first),
        ``width``, ``height`` and ``rate``.

    Returns
    -------
    LiveSource
        The source.

    Raises
    ------
    ChoiceError
        If an option is unknown or its value is not valid.
    """
    place, options = parse_place(f"camera:{text}", _OPTIONS)
    fourcc = options.text("fourcc")
    if fourcc is not None and (len(fourcc) != 4 or not fourcc.isascii()):
        raise ChoiceError(f"{options}: the option fourcc is {fourcc!r}; give four letters such as MJPG")
    wanted = {name: value for name in _PROPERTIES if (value := options.number(name)) is not None}
    name = f"camera {place}"
    return LiveSource(
        name, lambda: _Device(name, lambda: _open_local(place, wanted, fourcc)), patience=_CAMERA_PATIENCE
    )


def _open_stream(url: str, read_timeout: float) -> cv2.VideoCapture:
    return cv2.VideoCapture(
        url,
        cv2.CAP_FFMPEG,
        [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(_OPEN_TIMEOUT * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(read_timeout * 1000),
            cv2.CAP_PROP_N_THREADS, 1,
        ],
    )  # fmt: skip


def _open_local(place: str, wanted: dict[str, float], fourcc: str | None = None) -> cv2.VideoCapture:
    which: int | str = int(place) if place.isdecimal() else place
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    if isinstance(which, str) and not Path(which).exists():
        raise SourceError(f"there is no device {which!r}; 'onspect cameras' lists the connected cameras")
    capture = cv2.VideoCapture(which, backend)
    if fourcc is not None:  # first: many webcams have large sizes and high rates only as motion JPEG
        code = cv2.VideoWriter.fourcc(*fourcc)
        capture.set(cv2.CAP_PROP_FOURCC, code)
        given = int(capture.get(cv2.CAP_PROP_FOURCC))
        if capture.isOpened() and given != code:
            capture.release()
            name = given.to_bytes(4, "little", signed=given < 0).decode("latin-1")
            raise SourceError(f"the camera {place} gives {name!r}, not {fourcc!r}: ask for a format that it has")
    for name, value in wanted.items():
        capture.set(_PROPERTIES[name], value)
        got = capture.get(_PROPERTIES[name])
        if capture.isOpened() and abs(got - value) > 0.01 * value:
            capture.release()
            raise SourceError(f"the camera {place} gives a {name} of {got:g}, not {value:g}: ask for one that it has")
    return capture


class _Device:
    """An open capture that recognises a stalled read by its duration."""

    def __init__(
        self, name: str, open_capture: Callable[[], cv2.VideoCapture], read_timeout: float = _READ_TIMEOUT
    ) -> None:
        self._name = name
        self._read_timeout = read_timeout
        self._capture = open_capture()
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"cannot open {name}: it is not there, does not answer, or refuses the password")

    def read(self) -> Capture:
        started = time.perf_counter()
        try:
            read, frame = self._capture.read()
        except cv2.error as error:
            raise SourceError(f"{self._name}: OpenCV cannot read from it: {error.err}") from error
        captured = time.perf_counter()
        if not read:
            raise SourceError(f"{self._name} has stopped sending")
        if captured - started >= 0.95 * self._read_timeout:
            raise SourceError(f"{self._name} is frozen: nothing new came for {captured - started:.1f} s")
        return Capture(self._name, frame, captured=captured)

    def close(self) -> None:
        self._capture.release()
