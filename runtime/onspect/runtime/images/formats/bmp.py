"""BMP files: decoded by OpenCV, after the header and the file's length were checked; the format has no checksums."""

from __future__ import annotations

import struct

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import Accepts, Frame, decode_by_opencv, refuse_following

_MASKS = {16: {(0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)}, 32: {(0xFF0000, 0xFF00, 0xFF)}}


def decode(data: bytes, accepts: Accepts) -> Frame:
    """Decode a BMP file, uint8; raises ImageError where it is truncated, or compressed."""
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
        raise ImageError("the BMP is compressed, or of a rare layout, which is not read; save it as PNG")
    stride = (width * bits + 31) // 32 * 4
    if start < 14 + size or start + stride * abs(height) > len(data) + 2:  # some leave out the last padding
        raise _truncated(data)
    refuse_following(data, start + stride * abs(height))
    frame = decode_by_opencv(data)
    if frame is None or frame.shape[:2] != (abs(height), width):
        raise ImageError("OpenCV cannot decode the BMP; save it as PNG")
    return frame


def _has_usual_masks(data: bytes, bits: int) -> bool:
    return len(data) >= 66 and struct.unpack_from("<III", data, 54) in _MASKS.get(bits, set())


def _truncated(data: bytes) -> ImageError:
    return ImageError(f"the BMP is truncated: it ends after {len(data)} bytes, before its last row")
