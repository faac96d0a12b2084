"""BMP files: OpenCV decodes them after a check of header and length; the format has no checksums."""

from __future__ import annotations

import struct

import numpy as np

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import Accepts, Frame, decode_by_opencv, describe_index, refuse_following

_AGAIN = "copy or capture it again"

_MASKS = {16: {(0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)}, 32: {(0xFF0000, 0xFF00, 0xFF)}}


def decode(data: bytes, accepts: Accepts) -> Frame:
    """Decode a BMP file.

    Parameters
    ----------
    data
        The bytes of the file.
    accepts
        Called with width and height; it may raise ImageError.

    Returns
    -------
    Frame
        uint8, HxW or HxWx3 (BGR).

    Raises
    ------
    ImageError
        If the file is truncated, damaged or compressed.
    """
    if len(data) < 30:
        raise _truncated(data)
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif size >= 40 and len(data) >= 54:
        width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise ImageError("the BMP's header is damaged; copy or capture it again")
    if width <= 0 or height == 0 or planes != 1 or bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError("the BMP's header is damaged; copy or capture it again")
    accepts(width, abs(height))
    if compression not in (0, 3) or (compression == 3 and not _has_usual_masks(data, bits)):
        raise ImageError("the BMP is compressed, or has a rare layout that is not supported; save it as PNG")
    stride = (width * bits + 31) // 32 * 4
    if start < 14 + size or start + stride * abs(height) > len(data) + 2:  # some writers leave out the last padding
        raise _truncated(data)
    end = start + stride * abs(height)
    refuse_following(data, end)
    if struct.unpack_from("<I", data, 2)[0] == len(data) >= end + stride and not _has_profile(data, size):
        raise ImageError(f"the BMP is damaged: it has {len(data) - end} bytes more than its size; {_AGAIN}")
    if bits <= 8:
        _check_indices(data, start, (abs(height), width), bits, size)
    frame = decode_by_opencv(data)
    if frame is None or frame.shape[:2] != (abs(height), width):
        raise ImageError("OpenCV cannot decode the BMP; save it as PNG")
    return frame


def _check_indices(data: bytes, start: int, shape: tuple[int, int], bits: int, size: int) -> None:
    """Raise ImageError if a pixel has a colour that the palette lacks; OpenCV would use random bytes."""
    declared = struct.unpack_from("<I", data, 46)[0] if size >= 40 else 0
    colours = min(declared or 1 << bits, 1 << bits, (start - 14 - size) // (3 if size == 12 else 4))
    if colours >= 1 << bits:
        return
    stride = (shape[1] * bits + 31) // 32 * 4
    packed = np.frombuffer(data.ljust(start + stride * shape[0], b"\0"), np.uint8, stride * shape[0], start)
    rows = np.unpackbits(packed.reshape(shape[0], stride), axis=1)[:, : shape[1] * bits]
    highest = int(np.packbits(rows.reshape(*shape, bits), axis=2).max()) >> (8 - bits)
    if highest >= colours:
        raise ImageError(describe_index("BMP", highest, colours))


def _has_profile(data: bytes, size: int) -> bool:
    """Return whether the file contains a colour profile, which comes after the pixels."""
    return size >= 124 and len(data) >= 138 and struct.unpack_from("<I", data, 14 + 116)[0] > 0


def _has_usual_masks(data: bytes, bits: int) -> bool:
    return len(data) >= 66 and struct.unpack_from("<III", data, 54) in _MASKS.get(bits, set())


def _truncated(data: bytes) -> ImageError:
    return ImageError(f"the BMP is truncated: it ends after {len(data)} bytes, before its last row")
