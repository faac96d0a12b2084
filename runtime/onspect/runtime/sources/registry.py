"""Sources by their address: one row for each kind. Without a prefix it is a camera, a folder or a video file."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

from onspect.runtime.address import Kind, find_kind
from onspect.runtime.credentials import resolve_secret, show_address
from onspect.runtime.errors import SourceError
from onspect.runtime.explain import explaining
from onspect.runtime.sources.base import Source

_row = partial(Kind, "onspect.runtime.sources")
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")

SOURCES = (
    _row(("genicam:",), "cameras.genicam", "open_genicam", ("genicam:SERIAL",)),
    _row(("watch:",), "watch", "open_watch", ("watch:DIR",)),
    _row(_STREAMS, "cameras.opencv", "StreamSource", ("rtsp://HOST/PATH", "http://HOST/PATH")),
)
CAMERA = _row((), "cameras.opencv", "open_camera", ("NUMBER", "/dev/videoN"))


def open_source(text: Path | str) -> Source:
    """Return the source of frames of an address. It reads nothing before it is iterated.

    A camera that is not reachable is not an error. The source tries again until it is.

    Parameters
    ----------
    text
        A folder of images or a video file; ``watch:DIR?done=DIR`` for images that arrive in a folder; a number or
        device path for a camera of this machine, with ``?width=..&height=..&rate=..``; a URL (rtsp, http and others)
        for a network camera; ``genicam:SERIAL?...`` for an industrial camera; ``env:NAME`` or ``file:PATH`` for a
        variable or a file that contains the address.

    Returns
    -------
    Source
        The source.

    Raises
    ------
    SourceError
        If the address is none of these.
    DatasetError
        If a folder has no images.
    ChoiceError
        If an option is not valid.
    """
    address = resolve_secret(str(text))
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

    forms = ", ".join(form for row in (CAMERA, *SOURCES) for form in row.forms)
    cure = f"give a video file, a folder of images, or one of {forms}"
    with explaining(SourceError, f"cannot open the source {show_address(str(path))!r}", cure, of=(OSError, ValueError)):
        mode = path.stat().st_mode
    return FolderSource(path) if stat.S_ISDIR(mode) else VideoSource(path)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode) or str(path).startswith("/dev/video")
    except (OSError, ValueError):
        return str(path).startswith("/dev/video")
