"""Image files to frames. A file that is damaged or has several pictures is refused."""

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
"""Largest number of pixels of an image; a larger one is refused by its header, before it needs memory."""

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
    return decode_image(read_file(path), accepts)  # cv2.imread cannot open every path on Windows


def read_file(path: Path | str) -> bytes:
    """Read the bytes of a file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bytes
        The bytes.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    try:
        return _read_bytes(path)
    except OSError as error:
        raise ImageError(f"cannot read the file: {describe_os_error(error)}") from error
    except ValueError as error:  # a path that is not valid, such as one with a zero byte
        raise ImageError(f"cannot read the file: {error}") from error


def read_or_error(path: Path | str, read: Callable[[Path | str], Frame]) -> Frame | ImageError:
    """Read a frame; an ImageError is returned and not raised.

    Parameters
    ----------
    path
        The file.
    read
        Reads the file.

    Returns
    -------
    Frame | ImageError
        The frame or the error.
    """
    try:
        return read(path)
    except ImageError as error:
        return error.with_traceback(None)  # a traceback would keep its frames alive


def decode_image(data: bytes, accepts: Accepts | None = None) -> Frame:
    """Decode the bytes of an image file.

    Parameters
    ----------
    data
        The bytes.
    accepts
        Called with width and height before the picture is decoded; it may raise ImageError.

    Returns
    -------
    Frame
        uint8 or uint16, [height, width] or [height, width, 3] in BGR.

    Raises
    ------
    ImageError
        If the file is empty, truncated, damaged or too large, is not an image, or has several pages or frames.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")

    def check(width: int, height: int) -> None:
        if width * height > MOST_PIXELS:
            raise ImageError(
                f"the image is {width}x{height} pixels, more than the limit of {MOST_PIXELS:,} pixels", code="size"
            )
        if accepts is not None:
            accepts(width, height)

    return decode(data, check)


def _read_bytes(path: Path | str) -> bytes:
    """Return the bytes of a file in as few calls as possible.

    Each call lets another thread run Python and then waits for it; `Path.read_bytes` makes nine. A pipe without a
    writer is empty, and is not waited for.
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
    """Leave the cores to our own workers, and keep OpenCV from printing messages that we report; for the commands.

    FFmpeg in OpenCV is silenced too, because it may print a camera's URL with its password.
    """
    cv2.setNumThreads(1)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    opencv: Any = cv2
    set_level = opencv.setLogLevel if hasattr(opencv, "setLogLevel") else opencv.utils.logging.setLogLevel
    set_level(0)  # 0 is silent; the function moved between OpenCV 4 and 5
