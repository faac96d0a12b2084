"""WebP files: OpenCV decodes them after a check of the lengths of all chunks; the format has no checksums."""

from __future__ import annotations

from collections.abc import Callable

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import SEVERAL, Frame, decode_by_opencv, read_orientation, refuse_following

_HOLE = 16  # zero bytes in a row, which a lossless picture never has; a flat lossy one may have them


def decode(data: bytes, accepts: Callable[[int, int, int], None]) -> Frame:
    """Decode a WebP file.

    Parameters
    ----------
    data
        The bytes of the file.
    accepts
        Called with width and height as stored, and orientation, 1 to 8; it may raise ImageError.

    Returns
    -------
    Frame
        uint8, HxW or HxWx3 (BGR).

    Raises
    ------
    ImageError
        If the file is truncated, damaged or animated.
    """
    if data[8:12] != b"WEBP":
        raise ImageError(f"the file is RIFF, but no WebP image ({len(data)} bytes)")
    chunks = _read_chunks(data)
    if b"ANIM" in chunks or b"ANMF" in chunks:
        raise ImageError(SEVERAL)
    refuse_following(data, 8 + int.from_bytes(data[4:8], "little"))
    orientation = read_orientation(chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0"))
    accepts(*_read_size(chunks), orientation)
    if bytes(_HOLE) in chunks.get(b"VP8L", b""):
        raise ImageError("the WebP image is damaged: a part of it is all zeros; copy or capture it again")
    frame = decode_by_opencv(data)
    if frame is None:
        raise ImageError("OpenCV cannot decode the WebP image, or it is truncated; copy or capture it again")
    return frame


def _read_chunks(data: bytes) -> dict[bytes, bytes]:
    end = 8 + int.from_bytes(data[4:8], "little")
    position, chunks = 12, dict[bytes, bytes]()
    if end > len(data):
        raise _truncated(data)
    while position + 8 <= end:
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + length > end:
            raise _truncated(data)
        chunks[data[position : position + 4]] = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return chunks


def _read_size(chunks: dict[bytes, bytes]) -> tuple[int, int]:
    if len(lossy := chunks.get(b"VP8 ", b"")) >= 10:
        return int.from_bytes(lossy[6:8], "little") & 0x3FFF, int.from_bytes(lossy[8:10], "little") & 0x3FFF
    if len(lossless := chunks.get(b"VP8L", b"")) >= 5:
        bits = int.from_bytes(lossless[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ImageError("the WebP file has no picture in it; copy or capture it again")


def _truncated(data: bytes) -> ImageError:
    return ImageError(f"the WebP image is truncated: it ends after {len(data)} bytes, before its own end")
