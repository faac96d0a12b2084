"""PNG files: decoded by OpenCV, after each chunk's checksum and the length of the picture's data were checked."""

from __future__ import annotations

import zlib

from onspect.runtime.errors import ImageError
from onspect.runtime.formats import Accepts, Frame, decode_by_opencv

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7


def decode(data: bytes, accepts: Accepts) -> Frame:
    """Decode a PNG file; raises ImageError where it is not whole, or moves."""
    chunks = _read_chunks(data)
    header = chunks[0][1]
    if chunks[0][0] != b"IHDR" or len(header) != 13:
        raise ImageError("the PNG's header is damaged; copy or capture it again")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    accepts(width, height)
    if any(name == b"acTL" for name, _ in chunks):
        raise ImageError("the file holds several pages or frames, of which only one would be judged; split it")
    _check_length(b"".join(content for name, content in chunks if name == b"IDAT"), header, width, height)
    frame = decode_by_opencv(data)
    if frame is None or frame.shape[0] * frame.shape[1] != width * height:
        raise ImageError("OpenCV cannot decode the PNG; copy or capture it again")
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


def _check_length(packed: bytes, header: bytes, width: int, height: int) -> None:
    bits, colour, interlaced = header[8], header[9], header[12]
    if colour not in _CHANNELS or bits not in (1, 2, 4, 8, 16) or not width or not height:
        raise ImageError("the PNG's header is damaged; copy or capture it again")
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + -(-columns * bits * _CHANNELS[colour] // 8))
    unpacking, found = zlib.decompressobj(), 0
    try:
        rest = packed
        while rest and not unpacking.eof and found <= wanted:
            found += len(unpacking.decompress(rest, 1 << 20))
            rest = unpacking.unconsumed_tail
    except zlib.error as error:
        raise ImageError("the PNG is damaged: its data cannot be unpacked; copy or capture it again") from error
    if found != wanted or not unpacking.eof:
        raise ImageError(f"the PNG is damaged: its picture has {found} of {wanted} bytes; copy or capture it again")
