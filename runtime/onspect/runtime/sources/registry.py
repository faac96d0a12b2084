"""Sources by their address."""

from __future__ import annotations

import stat
from pathlib import Path

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.credentials import redact, resolve_secret
from onspect.runtime.errors import SourceError
from onspect.runtime.sources.base import Source

_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")


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
    kind, _, rest = address.partition(":")
    if kind == "genicam":
        from onspect.runtime.sources.cameras.genicam import open_genicam

        return open_genicam(address)
    if kind == "watch":
        from onspect.runtime.sources.watch import open_watch

        return open_watch(rest)
    if address.lower().startswith(_STREAMS):
        from onspect.runtime.sources.cameras.opencv import StreamSource

        return StreamSource(address)
    place, _, options = address.partition("?")
    if place.isdecimal() or _is_device(Path(place)):
        from onspect.runtime.sources.cameras.opencv import open_camera

        return open_camera(place, options)
    return _open_files(Path(address))


def _open_files(path: Path) -> Source:
    from onspect.runtime.sources.folder import FolderSource
    from onspect.runtime.sources.video import VideoSource

    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(
            f"cannot open the source {redact(str(path))!r}: {describe_os_error(error)}; give a video file or a folder "
            "of images, a camera's number, or a URL"
        ) from error
    return FolderSource(path) if stat.S_ISDIR(mode) else VideoSource(path)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode) or str(path).startswith("/dev/video")
    except (OSError, ValueError):
        return str(path).startswith("/dev/video")
