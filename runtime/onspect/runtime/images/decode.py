"""Image files to frames. A file that is damaged, or has more pictures than one, is refused rather than half seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import Accepts, Frame, decode

__all__ = [
    "MOST_PIXELS",
    "Accepts",
    "Frame",
    "decode_image",
    "quieten_opencv",
    "read_file",
    "read_image",
    "read_or_error",
]

MOST_PIXELS = 1 << 28
"""Pixels of an image that is read; a larger one is refused by its header, before it takes memory."""

_READ = 1 << 20  # bytes at a time


def read_image(path: Path | str, accepts: Accepts | None = None) -> Frame:
    """Read an image file as stored, rotated as its orientation tag says. An alpha channel is dropped.

    Parameters
    ----------
    path
        The file.
    accepts
        Function that is called with width and height before the picture is decoded; it may raise ImageError.

    Returns
    -------
    Frame
        uint8 or uint16, [height, width] or [height, width, 3] in BGR.

    Raises
    ------
    ImageError
        If the file cannot be read, is empty, truncated, damaged or too large, is not an image, or has several pages or
        frames.
    """
    return decode_image(read_file(path), accepts)  # not cv2.imread: on Windows it cannot open every path


def read_file(path: Path | str) -> bytes:
    """Return a file's bytes; raises ImageError where it cannot be read."""
    try:
        return _read_bytes(path)
    except OSError as error:
        raise ImageError(f"cannot read the file: {describe_os_error(error)}") from error
    except ValueError as error:  # a path that no file can have, such as one with a zero byte
        raise ImageError(f"cannot read the file: {error}") from error


def read_or_error(path: Path | str, read: Callable[[Path | str], Frame]) -> Frame | ImageError:
    """Return the frame that `read` makes of a file; the ImageError that it raises is returned."""
    try:
        return read(path)
    except ImageError as error:
        return error.with_traceback(None)  # its frames would live as long as it


def decode_image(data: bytes, accepts: Accepts | None = None) -> Frame:
    """Decode an image file's bytes; arguments, shapes, dtypes and errors as `read_image`."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")

    def check(width: int, height: int) -> None:
        if width * height > MOST_PIXELS:
            raise ImageError(
                f"the image is {width}x{height} pixels, more than the {MOST_PIXELS:,} that are read", code="size"
            )
        if accepts is not None:
            accepts(width, height)

    return decode(data, check)


def _read_bytes(path: Path | str) -> bytes:
    """Return a file's bytes in as few calls as it takes.

    Each call lets another thread run Python and then waits for it; `Path.read_bytes` makes nine. A pipe into which
    nobody writes is empty, and not waited for.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        try:
            parts = [os.read(file, _READ)]
        except BlockingIOError:  # a pipe with a writer
            os.set_blocking(file, True)
            parts = [os.read(file, _READ)]
        while parts[-1]:
            parts.append(os.read(file, _READ))
    finally:
        os.close(file)
    return parts[0] if len(parts) <= 2 else b"".join(parts)


def quieten_opencv() -> None:
    """Leave the cores to our own workers, and keep OpenCV from printing what we report ourselves; for the commands.

    FFmpeg inside it is silenced too: it may print a camera's URL with its password.
    """
    cv2.setNumThreads(1)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    opencv: Any = cv2
    set_level = opencv.setLogLevel if hasattr(opencv, "setLogLevel") else opencv.utils.logging.setLogLevel
    set_level(0)  # silent; the function moved between OpenCV 4 and 5
