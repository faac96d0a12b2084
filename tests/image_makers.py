"""Small image files of every layout, written byte by byte, so that tests need no picture and no other library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]


def draw_scene(height: int = 48, width: int = 64, seed: int = 0) -> Picture:
    """Return a smooth colour picture, BGR uint8, whose rows, columns and channels all differ."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 1.5)


def make_tiff(
    picture: Picture,
    *,
    bits: int | None = None,
    order: str = "<",
    photometric: int | None = None,
    compression: int = 1,
    planar: bool = False,
    rows: int | None = None,
    tile: int | None = None,
    orientation: int | None = None,
    predictor: bool = False,
    palette: Sequence[int] | None = None,
    subfile: int | None = None,
    extra: dict[int, tuple[str, Sequence[int]]] | None = None,
    following: bytes = b"",
) -> bytes:
    """Return a TIFF file of samples as they are, [h, w] or [h, w, samples]; of `bits` bits, packed.

    following: a page made by the same function with order and subfile, to come behind this one.
    """
    samples = picture.reshape(*picture.shape[:2], -1)
    height, width, count = samples.shape
    depth = bits or 8 * picture.dtype.itemsize
    kind = photometric if photometric is not None else 3 if palette is not None else 2 if count >= 3 else 1
    pieces = []
    for plane in [samples[:, :, [c]] for c in range(count)] if planar else [samples]:
        if tile:
            full = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            parts = [full[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]
        else:
            step = rows or height
            parts = [plane[y : y + step] for y in range(0, height, step)]
        pieces += [_pack(part, depth, order, compression, predictor) for part in parts]
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))
    places = []
    for piece in pieces:
        places.append(len(out))
        out += piece + bytes(len(piece) % 2)
    tags: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [depth] * count), 259: ("H", [compression]),
        262: ("H", [kind]), 277: ("H", [count]), 284: ("H", [2 if planar else 1]),
        (324 if tile else 273): ("I", places), (325 if tile else 279): ("I", [len(piece) for piece in pieces]),
    }  # fmt: skip
    if tile:
        tags |= {322: ("I", [tile]), 323: ("I", [tile])}
    else:
        tags[278] = ("I", [rows or height])
    for tag, value in ((274, orientation), (317, 2 if predictor else None), (254, subfile)):
        if value is not None:
            tags[tag] = ("H", [value])
    if palette is not None:
        tags[320] = ("H", palette)
    return _finish(out, tags | (extra or {}), order, following)


def _finish(out: bytearray, tags: dict[int, tuple[str, Sequence[int]]], order: str, following: bytes) -> bytes:
    entries = []
    for tag, (code, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(data) > 4:
            place = len(out)
            out += data + bytes(len(data) % 2)
            data = struct.pack(order + "I", place)
        entries.append(struct.pack(order + "HHI", tag, 3 if code == "H" else 4, len(values)) + data.ljust(4, b"\0"))
    struct.pack_into(order + "I", out, 4, len(out))
    out += struct.pack(order + "H", len(entries)) + b"".join(entries)
    if not following:
        return bytes(out + bytes(4))
    base = len(out) + 4
    shifted = bytearray(following)  # a page with inline values and one strip only: its two places move
    first = struct.unpack_from(order + "I", shifted, 4)[0]
    for entry in range(struct.unpack_from(order + "H", shifted, first)[0]):
        at = first + 2 + 12 * entry
        if struct.unpack_from(order + "H", shifted, at)[0] == 273:
            struct.pack_into(order + "I", shifted, at + 8, struct.unpack_from(order + "I", shifted, at + 8)[0] + base)
    return bytes(out + struct.pack(order + "I", base + first) + shifted)


def _pack(part: Picture, bits: int, order: str, compression: int, predictor: bool) -> bytes:
    if predictor:
        part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1).astype(part.dtype)
    if bits == 16:
        raw = part.astype(order + "u2").tobytes()
    elif bits == 8:
        raw = part.astype(np.uint8).tobytes()
    else:
        rows = part.reshape(len(part), -1).astype(np.uint16)
        spread = (rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        raw = np.packbits(spread.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
    pack = {8: zlib.compress, 32946: zlib.compress, 5: pack_lzw, 32773: pack_bits}.get(compression)
    return raw if pack is None else pack(raw)


def pack_bits(raw: bytes) -> bytes:
    """Return PackBits data: runs of equal bytes as runs, all others as they are."""
    out, at = bytearray(), 0
    while at < len(raw):
        run = 1
        while run < 128 and raw[at + run : at + run + 1] == raw[at : at + 1]:
            run += 1
        if run > 2:
            out += bytes([257 - run, raw[at]])
            at += run
        else:
            end = at + 1
            while end < min(at + 128, len(raw)) and raw[end : end + 3] != raw[end : end + 1] * 3:
                end += 1
            piece = raw[at:end]
            out += bytes([len(piece) - 1]) + piece
            at += len(piece)
    return bytes(out)


def pack_lzw(raw: bytes) -> bytes:
    """Return TIFF LZW data."""
    table: dict[bytes, int] = {}
    codes: list[tuple[int, int]] = []
    width = 9

    def clear() -> None:
        nonlocal table, width
        codes.append((256, width))
        table, width = {bytes([value]): value for value in range(256)}, 9

    clear()
    known, size = b"", 258
    for value in raw:
        longer = known + bytes([value])
        if longer in table:
            known = longer
            continue
        codes.append((table[known], width))
        table[longer] = size
        size += 1
        if size >= (1 << width) and width < 12:
            width += 1
        if size >= 4094:
            clear()
            size = 258
        known = bytes([value])
    codes.append((table[known], width))
    size += 1
    if size >= (1 << width) and width < 12:
        width += 1
    codes.append((257, width))
    bits = "".join(f"{code:0{length}b}" for code, length in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def make_png(
    picture: Picture,
    colour: int,
    *,
    bits: int | None = None,
    palette: bytes | None = None,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    missing_rows: int = 0,
) -> bytes:
    """Return a PNG file of samples as they are (RGB, not BGR), without filters."""
    samples = picture.reshape(*picture.shape[:2], -1)
    depth = bits or 8 * picture.dtype.itemsize
    rows = samples[: len(samples) - missing_rows]
    packed = [_pack(row[None], depth, ">", 1, predictor=False) for row in rows]
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], depth, colour, 0, 0, 0)
    found = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else []), *chunks]
    found += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in found
    )


def make_jpeg(picture: Picture, *flags: int, quality: int = 90) -> bytes:
    """Return a JPEG file by OpenCV."""
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, *flags])[1].tobytes()


def forge_jpeg_end(data: bytes, share: float) -> bytes:
    """Return a JPEG with only a share of its compressed data, and an end marker."""
    start = data.find(b"\xff\xda")
    return data[: start + round((len(data) - start) * share)].rstrip(b"\xff") + b"\xff\xd9"


def punch_hole(data: bytes, place: float, length: int = 64) -> bytes:
    """Return data with zeros in the middle, as lost blocks of a disk or of a transfer leave them."""
    at = round(len(data) * place)
    return data[:at] + bytes(length) + data[at + length :]
