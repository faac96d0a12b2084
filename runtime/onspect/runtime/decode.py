"""Image files to frames. A file that is cut, or holds more pictures than one, is refused rather than half seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.files import describe_os_error

Frame = NDArray[Any]
"""A frame: HxW (mono) or HxWx3 (BGR), uint8 or uint16."""

_READ = 1 << 20  # bytes at a time


def read_image(path: Path | str) -> Frame:
    """Read an image file: HxW or HxWx3 (BGR), uint8 or uint16, as stored, but turned as its EXIF orientation says.

    An alpha channel is dropped. Raises ImageError where the file cannot be read, is empty, truncated, no image, or
    holds several pages or frames.
    """
    try:
        data = _read_bytes(path)  # not cv2.imread: on Windows it cannot open every path
    except OSError as error:
        raise ImageError(f"cannot read the file: {describe_os_error(error)}") from error
    except ValueError as error:  # a path that no file can have, such as one with a zero byte
        raise ImageError(f"cannot read the file: {error}") from error
    return decode_image(data)


def decode_image(data: bytes) -> Frame:
    """Decode an image file's bytes; shapes, dtypes and errors as `read_image`."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    if _is_cut_jpeg(data):
        raise ImageError(f"the JPEG is truncated: it ends after {len(data)} bytes without an end marker")
    if _holds_several(data):
        raise ImageError("the file holds several pages or frames, of which only one would be judged; split it")
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot decode the file: {error.err}") from error
    if frame is None:
        raise ImageError(f"not an image that OpenCV can decode, or a truncated one ({len(data)} bytes)")
    return frame


def _read_bytes(path: Path | str) -> bytes:
    """Return a file's bytes in as few calls as it takes.

    Each call lets another thread run Python and then waits for it; `Path.read_bytes` makes nine.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
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


def _is_cut_jpeg(data: bytes) -> bool:
    """Tell whether JPEG data lacks its end marker after the first scan; OpenCV 4 would paint the rest grey.

    Header segments are skipped by their lengths, since a thumbnail inside them has an end marker of its own.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    position, last = 2, len(data) - 4
    while position <= last and data[position] == 0xFF:
        if data[position + 1] == 0xDA:
            return data.find(b"\xff\xd9", position) < 0
        if data[position + 1] == 0xFF:
            position += 1
        else:
            position += 2 + (data[position + 2] << 8 | data[position + 3])
    return True


def _holds_several(data: bytes) -> bool:
    """Tell whether a file is a TIFF of several pages, or a GIF, PNG or WebP that moves, from its headers."""
    if data.startswith((b"II*\0", b"MM\0*")):
        return _has_second_page(data)
    if data.startswith(b"\x89PNG"):
        return b"acTL" in data[: max(0, data.find(b"IDAT"))]
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)
    if data.startswith(b"GIF8"):
        read, frames = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        return read and len(frames) > 1
    return False


def _has_second_page(data: bytes) -> bool:
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    first = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[first : first + 2], order)
    after = first + 2 + 12 * entries
    return int.from_bytes(data[after : after + 4], order) != 0
