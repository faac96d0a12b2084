"""PNG files: decoded by OpenCV, after the checksum of each chunk and the end were checked; short data it refuses."""

from __future__ import annotations

import zlib

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import SEVERAL, Accepts, Frame, decode_by_opencv, refuse_following


def decode(data: bytes, accepts: Accepts) -> Frame:
    """Decode a PNG file; raises ImageError where it is not whole, or moves."""
    chunks = _read_chunks(data)
    header = chunks[0][1]
    if chunks[0][0] != b"IHDR" or len(header) != 13:
        raise ImageError("the PNG's header is damaged; copy or capture it again")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    accepts(width, height)
    if any(name == b"acTL" for name, _ in chunks):
        raise ImageError(SEVERAL)
    refuse_following(data, 8 + sum(12 + len(content) for _, content in chunks))
    frame = decode_by_opencv(data)
    if frame is None or frame.shape[0] * frame.shape[1] != width * height:
        raise ImageError("OpenCV cannot decode the PNG, or its data is short; copy or capture it again")
    return frame


def _read_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    position, chunks = 8, list[tuple[bytes, bytes]]()
    while True:
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if position + 12 > len(data) or end > len(data):
            raise ImageError(f"the PNG is truncated: it ends after {len(data)} bytes without an end chunk")
        name, content = data[position + 4 : position + 8], data[position + 8 : end - 4]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(
                f"the PNG is damaged: the checksum of its chunk at byte {position} is wrong; copy or capture it again"
            )
        chunks.append((name, content))
        if name == b"IEND":
            return chunks
        position = end
