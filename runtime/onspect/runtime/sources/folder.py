"""A folder of images as a source, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onspect.runtime.decode import read_image
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.files import list_images
from onspect.runtime.sources import Capture


def read_folder(folder: Path) -> Iterator[Capture]:
    """Read every image below a folder; raises DatasetError where there is none."""
    images, _ = list_images(folder)
    if not images:
        raise DatasetError(f"there are no images in {str(folder)!r}; give a folder with images or a video file")
    return (_read(path) for path in images)


def _read(path: Path) -> Capture:
    try:
        return Capture(str(path), read_image(path))
    except ImageError as error:
        return Capture(str(path), error)
