"""Progressive JPEG: check that each scan has exactly the data of its part of the picture (ITU-T T.81, annex G).

The check follows the Huffman codes and makes no picture: in Python, about a second for a million pixels. Cameras do not
write such files; picture editors and messengers do.
"""

from __future__ import annotations

import array

import numpy as np

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats.jpeg import Component, Picture, Scan, measure_scan, split_restarts, walk_huffman

_HOLE = 48  # zero bytes in a row: smooth gradients have 20
_DAMAGED = "the JPEG is truncated or damaged: a scan's data does not fit its size; copy or capture it again"


def check_progressive(picture: Picture, scans: list[Scan]) -> None:
    """Check the length of every scan.

    Parameters
    ----------
    picture
        The frame header.
    scans
        The scans.

    Raises
    ------
    ImageError
        If a scan is too short, too long or missing.
    """
    masks = {c.number: [0] * (picture.blocks(c)[0] * picture.blocks(c)[1]) for c in picture.components}
    levels: dict[tuple[int, int], int] = {}
    for scan in scans:
        first, last, high, low = _read_band(scan)
        for component in scan.components:
            for place in range(first, last + 1):
                if levels.get((component.number, place), 0 if not high else -1) != high:
                    raise ImageError(_DAMAGED)
                levels[component.number, place] = low
        if (first == 0 and last != 0) or (first > 0 and len(scan.components) != 1):
            raise ImageError(_DAMAGED)
        _check_scan(picture, scan, (first, last), refines=high > 0, masks=masks)
    if any(levels.get((component.number, place)) != 0 for component in picture.components for place in range(64)):
        raise ImageError("the JPEG is truncated or damaged: scans are missing; copy or capture it again")


def _read_band(scan: Scan) -> tuple[int, int, int, int]:
    first, last, levels = scan.segment[-3:]
    if not first <= last <= 63:
        raise ImageError(_DAMAGED)
    return first, last, levels >> 4, levels & 15


def _check_scan(
    picture: Picture, scan: Scan, band: tuple[int, int], *, refines: bool, masks: dict[int, list[int]]
) -> None:
    (across, down), _ = measure_scan(picture, scan)
    total = across * down
    tables = _read_tables(scan.tables)
    pieces = split_restarts(scan, total)
    for place, piece in enumerate(pieces):
        units = range(place * scan.restart, total if place == len(pieces) - 1 else (place + 1) * scan.restart)
        if band[0] > 0 and not refines and bytes(_HOLE) in piece:  # runs of empty blocks are one code
            raise ImageError("the JPEG is damaged: a part of its data is all zeros; copy or capture it again")
        bits = _Bits(piece)
        try:
            if band[0] == 0:
                used = _follow_dc(scan, tables, bits, len(units), refines=refines)
            else:
                component = scan.components[0]
                table = tables.get((1, _table_of(scan, component) & 15))
                used = _follow_ac(table, bits, units, band, masks[component.number], refines=refines)
        except (IndexError, TypeError) as error:  # beyond the end of the data, or a missing table
            raise ImageError(_DAMAGED) from error
        if not 0 <= bits.length - used < 8:
            raise ImageError(_DAMAGED)


class _Bits:
    """Compressed data as the 16 bits that follow each position."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\xff\x00", b"\xff")
        self.length = 8 * len(plain)
        bits = np.unpackbits(np.frombuffer(plain + b"\0\0", np.uint8))
        words = np.zeros(self.length + 1, np.uint16)
        for shift in range(16):
            words |= bits[shift : shift + self.length + 1].astype(np.uint16) << (15 - shift)
        self.following = array.array("H", words.tobytes())


def _follow_dc(scan: Scan, tables: dict[tuple[int, int], list[int]], bits: _Bits, units: int, *, refines: bool) -> int:
    blocks = [
        component
        for component in scan.components
        for _ in range(component.across * component.down if len(scan.components) > 1 else 1)
    ]
    if refines:
        return units * len(blocks)
    chosen = [tables.get((0, _table_of(scan, component) >> 4)) for component in blocks]
    following, position = bits.following, 0
    for _ in range(units):
        for table in chosen:
            entry = table[following[position]]  # type: ignore[index]  # None is a TypeError, which is caught
            if not entry:
                raise ImageError(_DAMAGED)
            position += (entry >> 8) + (entry & 255)
    return position


def _follow_ac(
    table: list[int] | None, bits: _Bits, units: range, band: tuple[int, int], masks: list[int], *, refines: bool
) -> int:
    first, last = band
    following, position, run = bits.following, 0, 0
    for unit in units:
        place, mask = first, masks[unit]
        if not run:
            known = mask
            while place <= last:
                entry = table[following[position]]  # type: ignore[index]  # None is a TypeError, which is caught
                if not entry:
                    raise ImageError(_DAMAGED)
                position += entry >> 8
                zeros, size = entry >> 4 & 15, entry & 15
                if not size and zeros < 15:
                    run = (1 << zeros) + (following[position] >> (16 - zeros) if zeros else 0)
                    position += zeros
                    break
                position += size
                if not refines:
                    place += zeros
                else:
                    while place <= last and (zeros or known >> place & 1):
                        if known >> place & 1:
                            position += 1
                        else:
                            zeros -= 1
                        place += 1
                if size:
                    if place > last or (refines and size != 1):
                        raise ImageError(_DAMAGED)
                    mask |= 1 << place
                place += 1
            masks[unit] = mask
            mask = known
        if run:
            if refines and place <= last:
                position += (mask >> place & ((1 << (last - place + 1)) - 1)).bit_count()
            run -= 1
    if run:
        raise ImageError(_DAMAGED)
    return position


def _table_of(scan: Scan, component: Component) -> int:
    """Return the byte of the scan header with the Huffman tables of a component."""
    place = scan.segment.index(bytes([component.number]), 5)
    while (place - 5) % 2:
        place = scan.segment.index(bytes([component.number]), place + 1)
    return scan.segment[place + 1]


def _read_tables(segments: bytes) -> dict[tuple[int, int], list[int]]:
    """Return the current Huffman tables: for each 16 bits the length of the code << 8 and its value; 0 for no code."""
    tables: dict[tuple[int, int], list[int]] = {}
    for kind, counts, symbols in walk_huffman(segments):
        values = iter(symbols)
        table: list[int] = []
        for length, count in enumerate(counts, 1):
            for _, value in zip(range(count), values, strict=False):
                table += [length << 8 | value] * (1 << (16 - length))
        if len(table) > 1 << 16:
            raise ImageError(_DAMAGED)
        tables[kind >> 4, kind & 15] = table + [0] * ((1 << 16) - len(table))
    return tables
