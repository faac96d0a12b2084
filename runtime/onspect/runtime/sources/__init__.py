"""Iterators of frames: folders of images and video files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.preprocess import Frame


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
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        return read_video(path)
    raise SourceError(f"the source {text!r} does not exist; give a video file or a folder of images")
