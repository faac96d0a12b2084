"""Image files, format by format: each is decoded completely or refused with the reason.

A decoder that repairs, pads or guesses would let a part be judged by pixels that no camera saw. Each module has
`decode(data, accepts)`: it reads the header, calls `accepts` with width and height, which may raise, and then returns
the frame. Damage that a format's own checks cannot show, such as a changed byte among the pixels of a BMP file, cannot
be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError

Frame = NDArray[Any]
"""A frame: HxW (mono) or HxWx3 (BGR), uint8 or uint16."""

Accepts = Callable[[int, int], None]
"""Raises ImageError if a width and a height, in pixels, are not accepted."""

NAMES = "JPEG, PNG, TIFF, BMP, PNM or WebP"

SEVERAL = "the file has several pages or frames, and only one would be judged; split it"

_OTHERS = (
    (b"gif8", "a GIF file"),
    (b"\x00\x00\x00\x0cjp", "a JPEG 2000 file"),
    (b"\xff\x6f\xff\x71", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"p7", "a PAM file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"pk\x03\x04", "a ZIP file"),
    (b"%pdf", "a PDF file"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)
"""First bytes, in small letters, of files that are not supported."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    *((b"P%d" % number, "pnm") for number in range(1, 7)),
    (b"RIFF", "webp"),
)


def decode(data: bytes, accepts: Accepts) -> Frame:
    """Decode the bytes of a file; the first bytes give the format.

    Parameters
    ----------
    data
        The bytes.
    accepts
        Called with width and height; it may raise ImageError.

    Returns
    -------
    Frame
        uint8 or uint16, HxW or HxWx3 (BGR).

    Raises
    ------
    ImageError
        If the format is not supported or the file is damaged.
    """
    turned = 1

    def check(width: int, height: int, orientation: int = 1) -> None:
        nonlocal turned
        turned = orientation
        accepts(*((height, width) if orientation >= 5 else (width, height)))

    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return _turn(_load(name).decode(data, check), turned)
    kind = _name_other(data)
    raise ImageError(f"the file is {kind}not a {NAMES} image ({len(data)} bytes); save it as one of these")


@cache
def _load(name: str) -> Any:
    """Return the module of a format."""
    return import_module(f"onspect.runtime.images.formats.{name}")


def _name_other(data: bytes) -> str:
    """Return the kind of an unsupported file if its first bytes show it; else an empty text."""
    start = data[:512].lstrip().lower()
    if data[4:8] == b"ftyp":
        return {b"heic": "a HEIC file, ", b"mif1": "a HEIF file, ", b"avif": "an AVIF file, "}.get(data[8:12], "")
    return next((f"{name}, " for signature, name in _OTHERS if start.startswith(signature)), "")


def refuse_following(data: bytes, end: int) -> None:
    """Refuse a file with another picture of the same format after its end.

    Parameters
    ----------
    data
        The bytes of the file.
    end
        Position of the end of the first picture.

    Raises
    ------
    ImageError
        If there is another picture.
    """
    if end >= len(data):
        return
    signature = next(signature for signature, _ in _SIGNATURES if data.startswith(signature))
    if data[end : end + 4096].lstrip(b"\0").startswith(signature):
        raise ImageError(SEVERAL)


def describe_index(kind: str, index: int, colours: int) -> str:
    """Describe a picture with a colour that its palette lacks.

    Parameters
    ----------
    kind
        Name of the format.
    index
        Number of the colour.
    colours
        Number of colours of the palette.

    Returns
    -------
    str
        The message of the error.
    """
    return f"the {kind} is damaged: it uses colour {index} of a palette of {colours}; copy or capture it again"


_AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def decode_by_opencv(data: bytes, flags: int = _AS_STORED) -> Frame | None:
    """Decode with OpenCV, without a rotation, because not all of its releases rotate all formats.

    Parameters
    ----------
    data
        The bytes of the file.
    flags
        Flags of `cv2.imdecode`.

    Returns
    -------
    Frame | None
        The frame; None if OpenCV cannot decode it.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data.

    Parameters
    ----------
    exif
        The data.

    Returns
    -------
    int
        1 to 8; 1 if there is none.
    """
    if not exif:
        return 1
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"

    def number(place: int, length: int) -> int:
        return int.from_bytes(exif[place : place + length], order)

    first = number(4, 4)
    for place in range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif) - 11), 12):
        if number(place, 2) == 0x0112 and 1 <= number(place + 8, 2) <= 8:
            return number(place + 8, 2)
    return 1


def _turn(frame: Frame, orientation: int) -> Frame:
    """Rotate and mirror a frame by its orientation of EXIF or TIFF, 1 to 8."""
    if orientation == 1:
        return frame
    if orientation in (5, 6, 7, 8):
        frame = np.swapaxes(frame, 0, 1)
    if orientation in (2, 3, 6, 7):
        frame = frame[:, ::-1]
    if orientation in (3, 4, 7, 8):
        frame = frame[::-1]
    return np.ascontiguousarray(frame)
