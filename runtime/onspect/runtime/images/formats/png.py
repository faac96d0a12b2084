"""PNG files: OpenCV decodes them after a check of each chunk's checksum and of the end; it refuses short data."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import (
    SEVERAL,
    Frame,
    decode_by_opencv,
    describe_index,
    read_orientation,
    refuse_following,
)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3  # the colour type


def decode(data: bytes, accepts: Callable[[int, int, int], None]) -> Frame:
    """Decode a PNG file.

    Parameters
    ----------
    data
        The bytes of the file.
    accepts
        Called with width and height as stored, and orientation, 1 to 8; it may raise ImageError.

    Returns
    -------
    Frame
        uint8 or uint16, HxW or HxWx3 (BGR).

    Raises
    ------
    ImageError
        If the file is truncated, damaged or animated.
    """
    chunks, end = _read_chunks(data)
    first = dict(reversed(chunks))
    header = chunks[0][1]
    if chunks[0][0] != b"IHDR" or len(header) != 13:
        raise ImageError("the PNG's header is damaged; copy or capture it again")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    accepts(width, height, read_orientation(first.get(b"eXIf", b"")))
    if b"acTL" in first:
        raise ImageError(SEVERAL)
    refuse_following(data, end)
    if header[9] == _PALETTE:
        _check_indices(chunks)
    frame = decode_by_opencv(data)
    if frame is None or frame.shape[:2] != (height, width):
        raise ImageError("OpenCV cannot decode the PNG, or its data is short; copy or capture it again")
    return frame


def _check_indices(chunks: list[tuple[bytes, bytes]]) -> None:
    """Raise ImageError if a pixel has a colour that the palette lacks; the indices are decoded as a grey picture."""
    header = chunks[0][1]
    most = (1 << header[8]) - 1
    colours = next((len(content) // 3 for name, content in chunks if name == b"PLTE"), 0)
    if not 0 < colours <= most:
        return
    grey = header[:9] + b"\0" + header[10:]
    kept = [(b"IHDR", grey), *((name, content) for name, content in chunks if name in (b"IDAT", b"IEND"))]
    indices = decode_by_opencv(_SIGNATURE + b"".join(_write_chunk(*chunk) for chunk in kept))
    if indices is not None and (highest := int(indices.max()) * most // 255) >= colours:
        raise ImageError(describe_index("PNG", highest, colours))


def _write_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _read_chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """Return name and content of each chunk up to the last one, and the position of its end."""
    position, chunks = 8, list[tuple[bytes, bytes]]()
    while True:
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if position + 12 > len(data) or end > len(data):
            raise ImageError(f"the PNG is truncated: it ends after {len(data)} bytes without an end chunk")
        name, content = data[position + 4 : position + 8], data[position + 8 : end - 4]
        if zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(
                f"the PNG is damaged: the checksum of its chunk at byte {position} is wrong; copy or capture it again"
            )
        chunks.append((name, content))
        if name == b"IEND":
            return chunks, end
        position = end
