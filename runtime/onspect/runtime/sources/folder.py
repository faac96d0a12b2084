"""A folder of images as a source, in the order of their names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.images.files import describe_left_out, list_images
from onspect.runtime.sources.base import Capture, Source

_LOG = logging.getLogger("onspect")


class FolderSource(Source):
    """Every image below a folder.

    Parameters
    ----------
    folder
        The folder.

    Raises
    ------
    DatasetError
        If the folder has no images.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._images, others = list_images(folder)
        words = describe_left_out(others, folder)
        if not self._images:
            left_out = f" (left out: {words})" if words else ""
            raise DatasetError(
                f"there are no images in {str(folder)!r}{left_out}; give a folder with images or a video file"
            )
        if words:
            _LOG.warning("left out in %r: %s", str(folder), words)

    def __iter__(self) -> Iterator[Capture]:
        for path in self._images:
            if self._stopped.is_set():
                return
            try:
                frame: Frame | ImageError = read_image(path)
            except ImageError as error:
                frame = error.with_traceback(None)
            yield Capture(str(path), frame)
