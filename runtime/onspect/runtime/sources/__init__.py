"""Sources of frames: folders of images, video files and cameras.

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
        """Whether frames go by at their own pace, as from a camera, so that only the latest may matter."""
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


def open_source(text: str) -> Source:
    """Open a folder of images, a video file, or ``genicam:SERIAL?...``.

    Raises SourceError where it is none of them, DatasetError for no images, ChoiceError for a camera's wrong option.
    """
    if text.startswith("genicam:"):
        from onspect.runtime.sources.genicam import open_genicam

        return open_genicam(text)
    from onspect.runtime.sources.folder import FolderSource
    from onspect.runtime.sources.video import VideoSource

    path = Path(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(
            f"cannot open the source {text!r}: {describe_os_error(error)}; give a video file or a folder of images"
        ) from error
    return FolderSource(path) if stat.S_ISDIR(mode) else VideoSource(path)
