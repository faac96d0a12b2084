"""JPEG files: OpenCV decodes them, but only if the compressed data is exactly as long as the picture needs.

libjpeg repairs: it paints grey where data is missing and skips where there is too much, and OpenCV does not report it.
But a file that simply ends, without an end marker, makes OpenCV give up (4.12 and newer). So each scan is decoded once
with eight filling bytes in place of the end marker: a complete scan never needs them and a short one uses them up. Then
it is decoded without its last byte, which a complete scan needs. Scans with restart intervals are tested interval by
interval.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import SEVERAL, Frame, decode_by_opencv, read_orientation

_AHEAD = 8  # bytes that libjpeg reads ahead
_HOLE = 16  # zero bytes in a row: if zeros are coefficients, no picture has 42 equal ones in a row
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_RESTART = re.compile(rb"\xff+([\xd0-\xd7])", re.DOTALL)
_WIDEST = 65_500
_REMEMBERED = 32  # headers and tables: the files of one camera have the same, and checks of their bytes take long
_SKETCH = cv2.IMREAD_REDUCED_GRAYSCALE_8  # the complete Huffman decoding, and little else
_REFUSED = {
    0xC3: "lossless",
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical"),
    **dict.fromkeys(range(0xC9, 0xD0), "arithmetic"),
}
_CURE = "save it as baseline JPEG or PNG"
_MISSING = "the JPEG is truncated or damaged: compressed data is missing; copy or capture it again"


@dataclass(frozen=True)
class Component:
    """A colour component."""

    number: int
    """Its number in the file."""
    across: int
    """Number of its blocks in a unit of the picture, horizontally."""
    down: int
    """Number of its blocks in a unit of the picture, vertically."""


@dataclass(frozen=True)
class Picture:
    """Content of the frame header."""

    kind: int
    """Marker of the header, 0xC0 to 0xC2."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    components: tuple[Component, ...]
    """The components."""
    segment: bytes
    """The bytes of the header."""

    @property
    def across(self) -> int:
        """Largest number of blocks of a component in a unit, horizontally."""
        return max(component.across for component in self.components)

    @property
    def down(self) -> int:
        """Largest number of blocks of a component in a unit, vertically."""
        return max(component.down for component in self.components)

    def blocks(self, component: Component) -> tuple[int, int]:
        """Return the number of 8x8 blocks of a component alone.

        Parameters
        ----------
        component
            The component.

        Returns
        -------
        tuple[int, int]
            Numbers horizontally and vertically.
        """
        return (
            _ceil(self.width * component.across, 8 * self.across),
            _ceil(self.height * component.down, 8 * self.down),
        )


@dataclass(frozen=True)
class Scan:
    """Compressed data of some components."""

    components: tuple[Component, ...]
    """The components."""
    tables: bytes
    """DQT and DHT segments until here."""
    segment: bytes
    """The bytes of the scan header."""
    restart: int
    """Units between two restart markers; 0 for none."""
    data: bytes
    """The compressed data."""
    end: int
    """Position of the end of the data in the file."""


def decode(data: bytes, accepts: Callable[[int, int, int], None]) -> Frame:
    """Decode a JPEG file.

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
        If the file is truncated or damaged, or of a kind that cannot be checked.
    """
    picture, scans, orientation = split(data)
    accepts(picture.width, picture.height, orientation)
    _refuse_another(data, picture, scans[-1].end)
    if picture.kind == 0xC2:
        from onspect.runtime.images.formats.progressive import check_progressive

        check_progressive(picture, scans)
        frame = decode_by_opencv(data)
    else:
        _check_coverage(picture, scans)
        frame = None
        if len(scans) == 1 and not scans[0].restart:  # the usual file of a camera: the first test is also the decoding
            frame = _decode_scan(data, scans[0])
            _check_surplus(_write_head(picture, scans[0], (picture.width, picture.height)), scans[0].data)
        else:
            for scan in scans:
                _check_scan(picture, scan)
            frame = decode_by_opencv(data)
    if frame is None or frame.shape[:2] != (picture.height, picture.width):
        raise ImageError(f"OpenCV cannot decode the JPEG; {_CURE}")
    return frame


def split(data: bytes) -> tuple[Picture, list[Scan], int]:
    """Split a JPEG file at its markers, up to the end marker.

    Parameters
    ----------
    data
        The bytes of the file.

    Returns
    -------
    tuple[Picture, list[Scan], int]
        The frame header, the scans, and the orientation of EXIF, 1 to 8.

    Raises
    ------
    ImageError
        If the file is truncated, damaged or of an unsupported kind.
    """
    position, restart, tables = 2, 0, b""
    picture: Picture | None = None
    scans: list[Scan] = []
    orientation: int | None = None
    while True:
        if data[position : position + 1] != b"\xff":
            raise (
                _truncated(data)
                if position >= len(data)
                else ImageError(f"the JPEG is damaged: there is no marker at byte {position}; copy or capture it again")
            )
        marker = data[position + 1] if position + 1 < len(data) else 0
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8 or length < 2 or end > len(data):
            raise _truncated(data)
        segment = data[position:end]
        position = end
        if marker in (0xDB, 0xC4):
            _check_tables(marker, segment[4:])
            tables += segment
        elif marker == 0xE1 and segment[4:10] == b"Exif\0\0" and orientation is None and not scans:
            orientation = read_orientation(segment[10:])
        elif marker == 0xDD and length == 4:
            restart = int.from_bytes(segment[4:6], "big")
        elif marker in _REFUSED or marker == 0xDC:
            raise ImageError(f"the JPEG is of an unsupported kind ({_REFUSED.get(marker, 'late height')}); {_CURE}")
        elif marker in (0xC0, 0xC1, 0xC2):
            if picture is not None:
                raise ImageError("the JPEG has two frame headers; copy or capture it again")
            picture = _read_frame_header(marker, segment)
        elif marker == 0xDA:
            if picture is None:
                raise ImageError("the JPEG has no frame header; copy or capture it again")
            found = _MARKER.search(data, position)
            if found is None:
                raise _truncated(data)
            scans.append(_read_scan(picture, segment, tables, restart, data[position : found.start()], found.start()))
            position = found.end() - 2
    if picture is None or not scans:
        raise ImageError(f"the JPEG has no picture in it ({len(data)} bytes); copy or capture it again")
    return picture, scans, orientation or 1


@lru_cache(_REMEMBERED)
def _check_tables(marker: int, content: bytes) -> None:
    """Raise ImageError for tables that no encoder writes: a quantization table with 0, a repeated Huffman symbol."""
    place, whole = 0, True
    while place < len(content):
        if marker == 0xDB:
            size, layout = (128, ">64H") if content[place] >> 4 else (64, ">64B")
            table = content[place + 1 : place + 1 + size]
            whole &= len(table) == size and 0 not in struct.unpack(layout, table)
            place += 1 + size
        else:
            count = sum(content[place + 1 : place + 17])
            symbols = content[place + 17 : place + 17 + count]
            whole &= 0 < len(symbols) == count == len(set(symbols))
            place += 17 + count
    if not whole:
        raise ImageError("the JPEG's tables are damaged; copy or capture it again")


def _refuse_another(data: bytes, picture: Picture, end: int) -> None:
    """Raise ImageError if a picture of the same size follows; smaller ones are previews and gain maps."""
    rest = data[data.find(b"\xff\xd9", end) + 2 :].lstrip(b"\0")
    if rest.startswith(b"\xff\xd8\xff"):
        try:
            other, _, _ = split(rest)
        except ImageError:
            return
        if {other.width, other.height} == {picture.width, picture.height}:
            raise ImageError(SEVERAL)


@lru_cache(_REMEMBERED)
def _read_frame_header(kind: int, segment: bytes) -> Picture:
    if len(segment) < 10 or len(segment) < 10 + 3 * segment[9] or not segment[9]:
        raise ImageError("the JPEG's frame header is damaged; copy or capture it again")
    bits, height, width, count = struct.unpack(">BHHB", segment[4:10])
    if bits != 8 or count not in (1, 3):
        raise ImageError(f"the JPEG has {bits} bits and {count} components, and 8 bits and 1 or 3 are read; {_CURE}")
    components = tuple(
        Component(segment[at], segment[at + 1] >> 4, segment[at + 1] & 15) for at in range(10, 10 + 3 * count, 3)
    )
    if not width or not height or not all(1 <= c.across <= 4 and 1 <= c.down <= 4 for c in components):
        raise ImageError("the JPEG's frame header is damaged; copy or capture it again")
    return Picture(kind, width, height, components, segment)


def _read_scan(picture: Picture, segment: bytes, tables: bytes, restart: int, data: bytes, end: int) -> Scan:
    known = {component.number: component for component in picture.components}
    count = segment[4] if len(segment) > 4 else 0
    numbers = [segment[5 + 2 * place] for place in range(count)] if len(segment) >= 8 + 2 * count else []
    if not numbers or any(number not in known for number in numbers):
        raise ImageError("the JPEG's scan header is damaged; copy or capture it again")
    return Scan(tuple(known[number] for number in numbers), tables, segment, restart, data, end)


def _check_coverage(picture: Picture, scans: list[Scan]) -> None:
    """Raise ImageError if a component is in no scan or in several."""
    found = sorted(component.number for scan in scans for component in scan.components)
    if found != sorted(component.number for component in picture.components):
        raise ImageError("the JPEG is damaged: a colour component is missing or comes twice; copy or capture it again")


def _check_scan(picture: Picture, scan: Scan) -> None:
    """Raise ImageError if the data of a scan is not exactly as long as its part of the picture needs."""
    units, unit = measure_scan(picture, scan)
    total = units[0] * units[1]
    pieces = split_restarts(scan, total)
    filling = _choose_filling(scan.tables)
    _check_holes(scan, filling)
    for place, piece in enumerate(pieces):
        count = total - place * scan.restart if place == len(pieces) - 1 else scan.restart
        columns, rows = units if len(pieces) == 1 else (count, 1)
        if len(pieces) > 1 and count % units[0] == 0:
            columns, rows = units[0], count // units[0]
        size = columns * unit[0], rows * unit[1]
        if size[0] > _WIDEST:
            raise ImageError(f"the JPEG's restart intervals are too long to be checked; {_CURE}")
        if len(pieces) == 1:  # not only whole units: the edges may have fewer blocks
            size = _own_size(picture, scan)
        head = _write_head(picture, scan, size)
        if decode_by_opencv(head + piece + filling, _SKETCH) is None:
            raise ImageError(_MISSING)
        _check_surplus(head, piece)


def _decode_scan(data: bytes, scan: Scan) -> Frame:
    """Decode a file of one scan, with filling bytes in place of its end marker."""
    filling = _choose_filling(scan.tables)
    _check_holes(scan, filling)
    frame = decode_by_opencv(data[: scan.end] + filling)
    if frame is None:
        raise ImageError(_MISSING)
    return frame


def _check_surplus(head: bytes, piece: bytes) -> None:
    if decode_by_opencv(head + piece[:-1], _SKETCH) is not None:
        raise ImageError("the JPEG is damaged: it has more compressed data than its size; copy or capture it again")


def _check_holes(scan: Scan, filling: bytes) -> None:
    if filling == bytes(_AHEAD) and bytes(_HOLE) in scan.data:
        raise ImageError("the JPEG is damaged: a part of its compressed data is all zeros; copy or capture it again")


@lru_cache(_REMEMBERED)
def _choose_filling(tables: bytes) -> bytes:
    """Return filling bytes that are used up within a block: zeros if they are coefficients, else ones (no code).

    If the code of zeros ends a block, eight zero bytes would represent many blocks.
    """
    for kind, _, symbols in walk_huffman(tables):
        if kind == 0x10 and symbols[0] & 15 == 0:  # the first symbol has the code of zeros
            return b"\xff\x00" * _AHEAD
    return bytes(_AHEAD)


def walk_huffman(tables: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the Huffman tables of a scan's segments, whose tables are whole.

    Parameters
    ----------
    tables
        The segments of tables before a scan, `Scan.tables`.

    Returns
    -------
    Iterator[tuple[int, bytes, bytes]]
        Class and number of a table as one byte, number of codes of 1 to 16 bits, and their symbols.
    """
    position = 0
    while position < len(tables):
        place, end = position + 4, position + 2 + int.from_bytes(tables[position + 2 : position + 4], "big")
        while tables[position + 1] == 0xC4 and place < end:
            counts = tables[place + 1 : place + 17]
            following = place + 17 + sum(counts)
            yield tables[place], counts, tables[place + 17 : following]
            place = following
        position = end


def measure_scan(picture: Picture, scan: Scan) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of a scan in units.

    Parameters
    ----------
    picture
        The frame header.
    scan
        The scan.

    Returns
    -------
    tuple[tuple[int, int], tuple[int, int]]
        Number of units, and pixels of a unit, both horizontally and vertically.
    """
    if len(scan.components) == 1:
        return picture.blocks(scan.components[0]), (8, 8)
    unit = 8 * picture.across, 8 * picture.down
    return (_ceil(picture.width, unit[0]), _ceil(picture.height, unit[1])), unit


def _own_size(picture: Picture, scan: Scan) -> tuple[int, int]:
    if len(scan.components) > 1:
        return picture.width, picture.height
    component = scan.components[0]
    return _ceil(picture.width * component.across, picture.across), _ceil(picture.height * component.down, picture.down)


def split_restarts(scan: Scan, total: int) -> list[bytes]:
    """Split the data of a scan at its restart markers.

    Parameters
    ----------
    scan
        The scan.
    total
        Number of units of the scan.

    Returns
    -------
    list[bytes]
        The data of each interval.

    Raises
    ------
    ImageError
        If a restart marker is missing or out of order.
    """
    found = list(_RESTART.finditer(scan.data))
    wanted = 0 if not scan.restart else _ceil(total, scan.restart) - 1
    if len(found) != wanted or any(match[1][0] != 0xD0 + place % 8 for place, match in enumerate(found)):
        raise ImageError(
            f"the JPEG is damaged: it has {len(found)} of {wanted} restart markers, or they are out of order; "
            "copy or capture it again"
        )
    starts = [0, *(match.end() for match in found)]
    ends = [*(match.start() for match in found), len(scan.data)]
    return [scan.data[start:end] for start, end in zip(starts, ends, strict=True)]


def _write_head(picture: Picture, scan: Scan, size: tuple[int, int]) -> bytes:
    """Return the beginning of a JPEG file for one scan, as a picture with another size and without restarts."""
    width, height = size
    parts = [picture.segment[at : at + 3] for at in range(10, 10 + 3 * len(picture.components), 3)]
    numbers = {component.number for component in scan.components}
    kept = [part for part in parts if part[0] in numbers]
    if len(kept) == 1:
        kept = [bytes([kept[0][0], 0x11, kept[0][2]])]
    frame = struct.pack(">BHHB", 8, height, width, len(kept)) + b"".join(kept)
    header = b"\xff" + bytes([picture.kind]) + struct.pack(">H", len(frame) + 2) + frame
    return b"\xff\xd8" + scan.tables + header + scan.segment


def _truncated(data: bytes) -> ImageError:
    return ImageError(f"the JPEG is truncated: it ends after {len(data)} bytes without an end marker")


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
