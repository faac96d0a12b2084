"""Sources of frames: folders of images, video files, and cameras of all kinds.

A source is a context manager and an iterable of `Capture`. Iterating opens it; iterating again opens it anew, which is
how a line gets away from a read that hangs.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from onspect.runtime.decode import Frame
from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.files import describe_os_error
from onspect.runtime.secrets import redact, resolve_secret
from onspect.runtime.status import SourceState


@dataclass(frozen=True)
class Capture:
    """One frame with where it came from; an ImageError stands in the place of a frame that could not be read.

    source: the file or camera. time: when it was captured, ISO 8601, UTC. captured: the same moment on
    `time.perf_counter`, from which its age is told. part: the part that it shows, where the source knows; the frames of
    one part come one after the other. recipe: the model to judge it with, by its name in the configuration. All four
    are None where the source does not know.
    """

    source: str
    frame: Frame | ImageError
    time: str | None = None
    captured: float | None = None
    part: str | None = None
    recipe: str | None = None


class Source(Protocol):
    """An iterable of captures that is opened by iterating and closed by leaving its context."""

    @property
    def live(self) -> bool:
        """Whether it has no end of its own, as a camera has none."""
        ...

    @property
    def can_wait(self) -> bool:
        """Whether it can be held up without a loss, as files can; the frames of a camera go by."""
        ...

    @property
    def patience(self) -> float | None:
        """Seconds without a capture after which a read counts as hung; None for a source that may be silent."""
        ...

    def __enter__(self) -> Self:
        """Return itself; nothing is opened yet."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop, and close what is open."""
        ...

    def __iter__(self) -> Iterator[Capture]:
        """Open the source and yield its captures; what is lost on the way is a capture with an ImageError.

        A live source opens itself again where it is lost, for ever, and ends only when stopped.
        """
        ...

    def state(self) -> SourceState:
        """Return how the source is; may be called from any thread."""
        ...

    def stop(self) -> None:
        """Let every iterator of this source end as soon as it can; may be called from any thread."""
        ...


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
        from onspect.runtime.sources.genicam import open_genicam

        return open_genicam(address)
    if kind == "watch":
        from onspect.runtime.sources.watch import open_watch

        return open_watch(rest)
    if address.lower().startswith(_STREAMS):
        from onspect.runtime.sources.opencv import StreamSource

        return StreamSource(address)
    place, _, options = address.partition("?")
    if place.isdecimal() or _is_device(Path(place)):
        from onspect.runtime.sources.opencv import open_camera

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
