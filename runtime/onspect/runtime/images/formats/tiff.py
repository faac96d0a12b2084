"""TIFF files, decoded here: OpenCV pads damaged strips and misreads planar and inverted 16-bit files.

Supported are grey, palette and RGB pictures of 1 to 16 bits, in strips or tiles, chunky or planar, uncompressed or with
deflate, LZW or PackBits. Other layouts are refused by name.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import SEVERAL, Frame, decode_by_opencv

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR = 273, 274, 277, 278, 279, 284, 317
_COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS, _FORMAT, _SUBFILE = 320, 322, 323, 324, 325, 339, 254
_EXTRA, _DEPTH = 338, 32997
_COMPRESSIONS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA",
    50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
_CURE = "save it as an uncompressed TIFF or as PNG"
_AGAIN = "copy or capture it again"
_MOST_ENTRIES = 4096
_MOST_SAMPLES = 8
_HOLE = 16  # zero bytes in a row, which no packed data has
_LONG = 2048  # smallest number of bytes for which OpenCV is faster


@dataclass(frozen=True)
class _Layout:
    """The content of the tags. pieces: offset and length of each strip or tile; piece: its width and height."""

    width: int
    height: int
    bits: int
    samples: int
    photometric: int
    compression: int
    predictor: int
    planar: bool
    reversed_bits: bool
    order: Literal["<", ">"]
    orientation: int
    colours: tuple[int, ...]
    piece: tuple[int, int]
    tiled: bool
    pieces: tuple[tuple[int, int], ...]


def decode(data: bytes, accepts: Callable[[int, int, int], None]) -> Frame:
    """Decode a TIFF file, not yet rotated by its orientation.

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
        If the file is truncated or damaged, has several pages, or has an unsupported layout.
    """
    try:
        tags, order = _read_only_page(data)
        layout = _read_layout(tags, order)
    except (struct.error, IndexError) as error:
        raise ImageError(
            f"the TIFF is truncated or damaged: its tags are not whole ({len(data)} bytes); {_AGAIN}"
        ) from error
    accepts(layout.width, layout.height, layout.orientation)
    return _to_frame(_read_samples(data, layout), layout)


def _read_only_page(data: bytes) -> tuple[dict[int, tuple[int, ...]], Literal["<", ">"]]:
    """Return the tags of the only page of full resolution; thumbnails and masks do not count as pages."""
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    position = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    pages, seen = [], set[int]()
    while position:
        if position in seen or len(seen) > _MOST_ENTRIES:
            raise ImageError(f"the TIFF is damaged: its pages refer to each other in a circle; {_AGAIN}")
        seen.add(position)
        tags, position = _read_page(data, position, order, big)
        pages.append(tags)
    full = [tags for tags in pages if not tags.get(_SUBFILE, (0,))[0] & 0b101]
    if len(full) > 1:
        raise ImageError(SEVERAL)
    if not full:
        raise ImageError(f"the TIFF has no page of full resolution; {_CURE}")
    return full[0], order


def _read_page(data: bytes, start: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    count = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, start)[0]
    if count > _MOST_ENTRIES:
        raise ImageError(f"the TIFF is damaged: a page has {count} tags; {_AGAIN}")
    first, step, inline = (start + 8, 20, 8) if big else (start + 2, 12, 4)
    tags: dict[int, tuple[int, ...]] = {}
    for place in range(first, first + step * count, step):
        tag, kind, number = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHI", data, place)
        length = _SIZES.get(kind, 0) * number
        if kind not in _CODES or length > len(data):
            if kind in _CODES:
                raise ImageError(f"the TIFF is damaged: tag {tag} is longer than the file; {_AGAIN}")
            continue
        value = place + step - inline
        if length > inline:
            value = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, value)[0]
        tags[tag] = struct.unpack_from(f"{order}{number}{_CODES[kind]}", data, value)
    following: int = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, first + step * count)[0]
    return tags, following


def _read_layout(tags: dict[int, tuple[int, ...]], order: Literal["<", ">"]) -> _Layout:
    def one(tag: int, default: int = 0) -> int:
        return tags[tag][0] if tags.get(tag) else default

    samples, bits = one(_SAMPLES, 1), set(tags.get(_BITS) or (1,))
    width, height, photometric = one(_WIDTH), one(_HEIGHT), one(_PHOTOMETRIC, 1)
    compression = one(_COMPRESSION, 1)
    if not width or not height or not 1 <= samples <= _MOST_SAMPLES:
        raise ImageError(f"the TIFF is damaged: its size is {width}x{height}, {samples} samples a pixel; {_AGAIN}")
    if any(kind not in (1, 4) for kind in tags.get(_FORMAT, ())):
        raise ImageError("the TIFF has signed or floating-point values; save it with unsigned 8 or 16 bits")
    if len(bits) > 1 or min(bits) not in (1, 2, 4, 8, 10, 12, 14, 16):
        raise ImageError(
            f"the TIFF has {' and '.join(map(str, sorted(bits)))} bits a value, which is not supported; {_CURE}"
        )
    if photometric not in (0, 1, 2, 3) or samples < (3 if photometric == 2 else 1):
        raise ImageError(
            f"the TIFF has colours of kind {photometric}, which are not supported (grey, RGB and palette are); {_CURE}"
        )
    colours, extra = 3 if photometric == 2 else 1, tags.get(_EXTRA, ())
    if samples > colours + 1 or 0 in extra[:1]:
        raise ImageError(
            f"the TIFF has {samples} channels, of which {colours} would be judged; save one picture, grey or RGB"
        )
    if compression not in (1, 5, 8, 32773, 32946):
        name = _COMPRESSIONS.get(compression, f"number {compression}")
        raise ImageError(f"the TIFF has the compression {name}, in which damage cannot be noticed; {_CURE}")
    if one(_DEPTH, 1) > 1:
        raise ImageError(SEVERAL)
    if one(_ORIENTATION, 1) > 8:
        raise ImageError(f"the TIFF is damaged: its orientation is {one(_ORIENTATION)}, and 1 to 8 exist; {_AGAIN}")
    tiled = _TILES in tags
    offsets, lengths = tags.get(_TILES if tiled else _STRIPS, ()), tags.get(_TILE_COUNTS if tiled else _COUNTS, ())
    piece = (one(_TILE_WIDTH), one(_TILE_HEIGHT)) if tiled else (width, min(one(_ROWS, height), height) or height)
    if not offsets or len(offsets) != len(lengths) or not all(piece):
        raise ImageError(
            f"the TIFF is damaged: it has {len(offsets)} offsets of strips and {len(lengths)} lengths; {_AGAIN}"
        )
    return _Layout(
        width, height, min(bits), samples, photometric, compression, one(_PREDICTOR, 1), one(_PLANAR, 1) == 2,
        one(_FILL, 1) == 2, order, max(1, one(_ORIENTATION, 1)), tags.get(_COLOURS, ()), piece, tiled,
        tuple(zip(offsets, lengths, strict=True)),
    )  # fmt: skip


def _read_samples(data: bytes, layout: _Layout) -> NDArray[np.uint16 | np.uint8]:
    """Return all samples, [height, width, samples]."""
    planes = layout.samples if layout.planar else 1
    inside = 1 if layout.planar else layout.samples
    across, down = -(-layout.width // layout.piece[0]), -(-layout.height // layout.piece[1])
    if len(layout.pieces) != across * down * planes:
        raise ImageError(
            f"the TIFF is damaged: it has {len(layout.pieces)} of {across * down * planes} strips or tiles; {_AGAIN}"
        )
    _check_places(layout)
    found = np.zeros((layout.height, layout.width, layout.samples), np.uint8 if layout.bits <= 8 else np.uint16)
    for number, (offset, length) in enumerate(layout.pieces):
        plane, place = divmod(number, across * down)
        row, column = (place // across) * layout.piece[1], (place % across) * layout.piece[0]
        rows = layout.piece[1] if layout.tiled else min(layout.piece[1], layout.height - row)
        shape = (rows, layout.piece[0], inside)
        values = _read_piece(data, layout, number, (offset, length), shape)
        target = found[row : row + rows, column : column + layout.piece[0]]
        part = values[: target.shape[0], : target.shape[1]]
        if layout.planar:
            target[:, :, plane] = part[:, :, 0]
        else:
            target[:] = part
    return found


def _check_places(layout: _Layout) -> None:
    """Raise ImageError if strips or tiles share bytes with each other or with the file's header."""
    end = 8
    for offset, length in sorted(layout.pieces):
        if offset < end:
            raise ImageError(f"the TIFF is damaged: strips or tiles overlap at byte {offset}; {_AGAIN}")
        end = offset + length


def _read_piece(
    data: bytes, layout: _Layout, number: int, place: tuple[int, int], shape: tuple[int, int, int]
) -> NDArray[np.uint16 | np.uint8]:
    rows, columns, samples = shape
    row_bytes = -(-columns * samples * layout.bits // 8)
    wanted = rows * row_bytes
    if not place[1] or place[0] + place[1] > len(data):
        raise ImageError(f"the TIFF is truncated: strip or tile {number} is beyond the end of the file; {_AGAIN}")
    packed = data[place[0] : place[0] + place[1]]
    if layout.reversed_bits:
        packed = packed.translate(_MIRRORED)
    full = layout.piece[1] * row_bytes  # some writers pad the last strip to this size
    raw = _unpack(packed, layout.compression, wanted)
    if raw is None and full > wanted:
        raw = _unpack(packed, layout.compression, full)
    if raw is not None and len(raw) >= full + row_bytes:
        raise ImageError(f"the TIFF is damaged: strip or tile {number} has more rows than the picture; {_AGAIN}")
    if raw is None or len(raw) < wanted:
        has = "cannot be unpacked" if raw is None else f"has {len(raw)} of {wanted} bytes"
        raise ImageError(f"the TIFF is truncated or damaged: strip or tile {number} {has}; {_AGAIN}")
    values = _to_values(np.frombuffer(raw, np.uint8, wanted).reshape(rows, row_bytes), layout, columns * samples)
    values = values.reshape(shape)
    if layout.compression != 1 and layout.predictor == 2:
        if layout.bits not in (8, 16):
            raise ImageError(f"the TIFF has a predictor for {layout.bits} bits, which is not supported; {_CURE}")
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    elif layout.compression != 1 and layout.predictor != 1:
        raise ImageError(f"the TIFF has the predictor {layout.predictor}, which is not supported; {_CURE}")
    return values


def _to_values(rows: NDArray[np.uint8], layout: _Layout, count: int) -> NDArray[np.uint16 | np.uint8]:
    """Return packed rows as numbers, [rows, count]."""
    if layout.bits == 8:
        return rows
    if layout.bits == 16:
        words: NDArray[np.uint16] = np.ascontiguousarray(rows).view(f"{layout.order}u2").astype(np.uint16)
        return words
    bits = np.unpackbits(rows, axis=1)[:, : count * layout.bits].reshape(len(rows), count, layout.bits)
    weights = (1 << np.arange(layout.bits - 1, -1, -1)).astype(np.uint16)
    values: NDArray[np.uint16] = (bits * weights).sum(axis=2, dtype=np.uint16)
    return values.astype(np.uint8) if layout.bits < 8 else values


def _to_frame(samples: NDArray[np.uint16 | np.uint8], layout: _Layout) -> Frame:
    """Return a frame from samples: palettes applied, white as the highest value, alpha dropped."""
    if layout.photometric == 3:
        return _look_up(samples[:, :, 0], layout)
    most = (1 << layout.bits) - 1
    values = samples[:, :, :3] if layout.photometric == 2 else samples[:, :, 0]
    if layout.photometric == 0:
        values = most - values
    if layout.bits < 8:
        values = (values.astype(np.uint16) * (255 // most)).astype(np.uint8)
    return np.ascontiguousarray(values[:, :, ::-1] if layout.photometric == 2 else values)


def _look_up(indices: NDArray[np.uint16 | np.uint8], layout: _Layout) -> Frame:
    size = 1 << layout.bits
    if layout.bits > 8 or len(layout.colours) != 3 * size:
        raise ImageError(f"the TIFF is damaged: its palette has {len(layout.colours)} of {3 * size} values; {_AGAIN}")
    colours = np.array(layout.colours, np.uint16).reshape(3, size).T
    scaled = colours >> 8 if int(colours.max()) > 255 else colours  # some writers store 8 bits in place of 16
    frame: Frame = scaled.astype(np.uint8)[indices][:, :, ::-1]
    return np.ascontiguousarray(frame)


def _unpack(packed: bytes, compression: int, wanted: int) -> bytes | None:
    """Return the bytes of a strip, or None if the data is damaged."""
    if compression == 1:
        return packed
    if compression in (8, 32946):
        unpacking = zlib.decompressobj()
        try:
            raw = unpacking.decompress(packed, wanted + 1)
        except zlib.error:
            return None
        return raw if unpacking.eof and len(raw) == wanted else None
    if bytes(_HOLE) in packed:  # PackBits writes equal bytes as a run, LZW as one longer code
        return None
    if compression == 5 and len(packed) > _LONG and wanted % 2 == 0 and wanted // 2 < 1 << 20:
        return _unpack_lzw_by_opencv(packed, wanted)
    raw_or_none = unpack_bits(packed, wanted) if compression == 32773 else unpack_lzw(packed, wanted)
    return raw_or_none if raw_or_none is None or len(raw_or_none) == wanted else None


def unpack_bits(packed: bytes, wanted: int) -> bytes | None:
    """Unpack PackBits data.

    Parameters
    ----------
    packed
        The data.
    wanted
        Number of bytes to unpack.

    Returns
    -------
    bytes | None
        The bytes; None if the data ends within a run or is too long.
    """
    parts, position, total = [], 0, 0
    while position < len(packed) and total < wanted:
        head = packed[position]
        if head < 128:
            part = packed[position + 1 : position + 2 + head]
            if len(part) != head + 1:
                return None
            position += 2 + head
        elif head > 128:
            if position + 1 >= len(packed):
                return None
            part = packed[position + 1 : position + 2] * (257 - head)
            position += 2
        else:
            position += 1
            continue
        parts.append(part)
        total += len(part)
    rest = packed[position:]
    return b"".join(parts) if len(rest) <= 1 or (not rest.strip(b"\x80\0") and len(rest) < 4) else None


def _unpack_lzw_by_opencv(packed: bytes, wanted: int) -> bytes | None:
    """Unpack LZW data as `unpack_lzw` does, but many times faster.

    OpenCV refuses a damaged or short strip of a 16-bit file. So the data is decoded as one row of such a file, and as a
    row that is longer by one value, which OpenCV must refuse.
    """
    row = decode_by_opencv(_write_row(packed, wanted // 2))
    if row is None or decode_by_opencv(_write_row(packed, wanted // 2 + 1)) is not None:
        return None
    return row.astype("<u2").tobytes()


def _write_row(packed: bytes, width: int) -> bytes:
    """Return a little-endian TIFF file with one row of 16-bit grey as LZW data."""
    values = {
        _WIDTH: width, _HEIGHT: 1, _BITS: 16, _COMPRESSION: 5, _PHOTOMETRIC: 1, _STRIPS: 8, _SAMPLES: 1, _ROWS: 1,
        _COUNTS: len(packed),
    }  # fmt: skip
    data = packed + bytes(len(packed) % 2)
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(values)) + tags + bytes(4)


def unpack_lzw(packed: bytes, wanted: int) -> bytes | None:
    """Unpack the LZW data of a TIFF file.

    Parameters
    ----------
    packed
        The data.
    wanted
        Number of bytes to unpack.

    Returns
    -------
    bytes | None
        The bytes; None if a code is not valid, the end is missing, or the data is too long.
    """
    if len(packed) > 1 and packed[0] == 0 and packed[1] & 1:
        return None  # the bit order of versions before TIFF 5
    table: list[bytes] = [bytes([value]) for value in range(256)] + [b"", b""]
    parts: list[bytes] = []
    width, buffer, held, total = 9, 0, 0, 0
    previous = b""
    for place, byte in enumerate(packed):
        buffer = (buffer << 8 | byte) & 0xFFFFFF
        held += 8
        if held < width:
            continue
        held -= width
        code = buffer >> held & ((1 << width) - 1)
        if code == 257:
            return b"".join(parts) if len(packed) - place <= 2 else None
        if code == 256:
            del table[258:]
            width, previous = 9, b""
            continue
        if not previous:
            if code > 255:
                return None
            previous = table[code]
        else:
            if code < len(table):
                entry = table[code]
            elif code == len(table):
                entry = previous + previous[:1]
            else:
                return None
            if len(table) >= 4096:
                return None
            table.append(previous + entry[:1])
            previous = entry
            if len(table) + 1 >= 1 << width and width < 12:
                width += 1
        parts.append(previous)
        total += len(previous)
        if total > wanted:
            return None
    return b"".join(parts) if total == wanted and not packed[-1:].strip(b"\0") else None


_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
