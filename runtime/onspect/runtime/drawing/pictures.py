"""The pictures that a region is drawn on: image files, or the frames of a camera or video."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from pathlib import Path
from typing import Protocol, Self

from onspect.runtime.errors import ImageError, OnspectError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.images.files import IMAGE_SUFFIXES, list_images
from onspect.runtime.sources.registry import open_source

_LOG = logging.getLogger("onspect")

_KEPT = 4  # newest and last shown frames of a camera that are kept, so the shown frame exists when it is saved
_PAUSE = 0.1  # seconds between two frames of a video file


class Pictures(Protocol):
    """The numbered pictures of the page."""

    @property
    def live(self) -> bool:
        """Whether new pictures come automatically."""
        ...

    @property
    def names(self) -> list[str]:
        """Names of the files; empty for frames."""
        ...

    @property
    def newest(self) -> int:
        """Number of the last picture; -1 without pictures."""
        ...

    def read(self, number: int) -> Frame:
        """Return a picture.

        Parameters
        ----------
        number
            Number of the picture, 0 or more.

        Returns
        -------
        Frame
            The picture.

        Raises
        ------
        ImageError
            If it cannot be read or is no longer kept.
        """
        ...

    def path(self, number: int) -> Path | None:
        """Return the file of a picture.

        Parameters
        ----------
        number
            Number of the picture, 0 or more.

        Returns
        -------
        Path | None
            Path of the file; None for a frame.
        """
        ...

    def __enter__(self) -> Self:
        """Begin to receive frames."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop."""
        ...


def open_pictures(source: str) -> Pictures:
    """Open the pictures of a source.

    Parameters
    ----------
    source
        An image file, a folder of images, or a source that `open_source` takes.

    Returns
    -------
    Pictures
        The pictures.

    Raises
    ------
    OnspectError
        If the source is not valid.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return FilePictures([path])
    if path.is_dir() and (images := list_images(path)[0]):
        return FilePictures(images)
    return LivePictures(source)


class FilePictures:
    """Image files, numbered from 0."""

    live = False

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.names = [path.name for path in paths]
        self.newest = len(paths) - 1

    def read(self, number: int) -> Frame:
        """Return a picture.

        Parameters
        ----------
        number
            Number of the picture, 0 or more.

        Returns
        -------
        Frame
            The picture.

        Raises
        ------
        ImageError
            If it cannot be read or there is no such picture.
        """
        if not 0 <= number < len(self._paths):
            raise ImageError(f"there is no picture {number}")
        return read_image(self._paths[number])

    def path(self, number: int) -> Path | None:
        """Return the file of a picture.

        Parameters
        ----------
        number
            Number of the picture, 0 or more.

        Returns
        -------
        Path | None
            Path of the file.
        """
        return self._paths[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing: no file is open."""


class LivePictures:
    """The newest frames of a camera, stream or video, numbered in the order of their arrival."""

    live = True

    def __init__(self, source: str) -> None:
        self._source = open_source(source)
        self._frames: deque[tuple[int, Frame]] = deque(maxlen=_KEPT)
        self._shown: deque[tuple[int, Frame]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._problem = "no frame has come yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="onspect-roi-frames", daemon=True)
        self.names: list[str] = []

    @property
    def newest(self) -> int:
        """Number of the last frame; -1 before the first."""
        with self._lock:
            return self._frames[-1][0] if self._frames else -1

    def read(self, number: int) -> Frame:
        """Return a frame.

        Parameters
        ----------
        number
            Number of the frame; a negative number is the newest.

        Returns
        -------
        Frame
            The frame.

        Raises
        ------
        ImageError
            If it is no longer kept, or no frame has come.
        """
        with self._lock:
            for own, frame in [*reversed(self._frames), *self._shown]:
                if number < 0 or own == number:
                    self._shown.append((own, frame))
                    return frame
            if not self._frames:
                raise ImageError(self._problem)
        raise ImageError(f"frame {number} is no longer kept; let the picture run and stop it again")

    def path(self, number: int) -> Path | None:  # noqa: ARG002 - a frame has no file
        """Return None, because a frame has no file.

        Parameters
        ----------
        number
            Number of the frame.

        Returns
        -------
        Path | None
            None.
        """
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._source.stop()
        self._thread.join(3.0)
        with contextlib.suppress(OnspectError):
            self._source.__exit__(None, None, None)

    def _receive(self) -> None:
        number = 0
        try:
            for capture in self._source:
                if self._stop.is_set():
                    return
                if isinstance(capture.frame, ImageError):
                    self._problem = str(capture.frame)
                    continue
                with self._lock:
                    self._frames.append((number, capture.frame))
                number += 1
                if not self._source.live:
                    self._stop.wait(_PAUSE)
        except OnspectError as error:
            self._problem = str(error)
            _LOG.warning("%s", error)
