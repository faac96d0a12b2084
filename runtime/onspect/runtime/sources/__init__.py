"""Iterators of frames: folders of images and video files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onspect.runtime.decode import Frame
from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.files import describe_os_error


@dataclass(frozen=True)
class Capture:
    """One frame with where it came from; an ImageError stands in the place of a frame that could not be read."""

    source: str
    frame: Frame | ImageError


def open_source(text: str) -> Iterator[Capture]:
    """Open a folder of images or a video file; raises SourceError where it is neither, DatasetError for no images."""
    from onspect.runtime.sources.folder import read_folder
    from onspect.runtime.sources.video import read_video

    path = Path(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(
            f"cannot open the source {text!r}: {describe_os_error(error)}; give a video file or a folder of images"
        ) from error
    return read_folder(path) if stat.S_ISDIR(mode) else read_video(path)
