"""Sources by their address: one row for each kind; what has no prefix is a camera, a folder or a video file."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

from onspect.runtime.address import Kind, find_kind
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.credentials import resolve_secret, show_address
from onspect.runtime.errors import SourceError
from onspect.runtime.sources.base import Source

_row = partial(Kind, "onspect.runtime.sources")
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")

SOURCES = (
    _row(("genicam:",), "cameras.genicam", "open_genicam", ("genicam:SERIAL",)),
    _row(("watch:",), "watch", "open_watch", ("watch:DIR",)),
    _row(_STREAMS, "cameras.opencv", "StreamSource", ("rtsp://HOST/PATH", "http://HOST/PATH")),
)
CAMERA = _row((), "cameras.opencv", "open_camera", ("NUMBER", "/dev/videoN"))


def open_source(text: str) -> Source:
    """Open a source of frames by its address; nothing is read until it is iterated.

    A folder of images or a video file; ``watch:DIR?done=DIR`` for the images that come into a folder; a number or
    device path for a camera of this machine, with ``?width=..&height=..&rate=..``; a URL (rtsp, http and others) for a
    camera in the network; ``genicam:SERIAL?...`` for an industrial camera; ``env:NAME`` or ``file:PATH`` for an address
    that stands there, since it holds a password.

    Raises SourceError where it is none of them, DatasetError for a folder without images, ChoiceError for a wrong
    option. A camera that is away is no error: it is tried again until it is there.
    """
    address = resolve_secret(text)
    kind = find_kind(SOURCES, address)
    place = address.partition("?")[0]
    if kind is None and (place.isdecimal() or _is_device(Path(place))):
        kind = CAMERA
    source = _open_files(Path(address)) if kind is None else kind.open(address)
    assert isinstance(source, Source)
    return source


def _open_files(path: Path) -> Source:
    from onspect.runtime.sources.folder import FolderSource
    from onspect.runtime.sources.video import VideoSource

    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(
            f"cannot open the source {show_address(str(path))!r}: {describe_os_error(error)}; give a video file or a "
            "folder of images, a camera's number, or a URL"
        ) from error
    return FolderSource(path) if stat.S_ISDIR(mode) else VideoSource(path)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode) or str(path).startswith("/dev/video")
    except (OSError, ValueError):
        return str(path).startswith("/dev/video")
