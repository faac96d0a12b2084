"""Image files: every layout is decoded right or refused with its reason, and no damaged file passes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import MOST_PIXELS, decode_image
from onspect.runtime.images.formats.tiff import unpack_lzw

from ...image_makers import (
    Picture,
    draw_scene,
    forge_jpeg_end,
    make_jpeg,
    make_png,
    make_tiff,
    pack_lzw,
    punch_hole,
)

BGR = draw_scene()
RGB = np.ascontiguousarray(BGR[:, :, ::-1])
GREY = np.ascontiguousarray(BGR[:, :, 1])
DEEP = GREY.astype(np.uint16) * 257
DEEP_BGR = BGR.astype(np.uint16) * 250
PALETTE = [*range(0, 65536, 257), *([0] * 256), *range(65535, -1, -257)]


def _refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 32946])
@pytest.mark.parametrize(
    ("picture", "want"),
    [(GREY, GREY), (RGB, BGR), (DEEP, DEEP), (DEEP_BGR[:, :, ::-1], DEEP_BGR)],
    ids=["grey", "rgb", "grey16", "rgb16"],
)
@pytest.mark.parametrize(
    "layout",
    [{}, {"rows": 7}, {"planar": True}, {"planar": True, "rows": 5}, {"tile": 16}, {"planar": True, "tile": 32}],
)
def test_tiff_is_decoded_whatever_its_layout(
    picture: Picture, want: Picture, layout: dict[str, int], compression: int, order: str
) -> None:
    """Strips, tiles, planes, byte orders and compressions give the same pixels, and the same depth."""
    found = decode_image(make_tiff(picture, order=order, compression=compression, **layout))  # type: ignore[arg-type]
    assert found.dtype == want.dtype
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("compression", [5, 8])
@pytest.mark.parametrize(("picture", "want"), [(GREY, GREY), (RGB, BGR), (DEEP, DEEP)])
def test_tiff_predictor(picture: Picture, want: Picture, compression: int) -> None:
    """Differences along the rows are added up."""
    np.testing.assert_array_equal(decode_image(make_tiff(picture, compression=compression, predictor=True)), want)


@pytest.mark.parametrize(
    ("bits", "most"), [(1, 1), (2, 3), (4, 15), (8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)]
)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_bit_depth_and_direction(bits: int, most: int, white_is_zero: bool) -> None:
    """Up to 8 bits fill 0 to 255; more stay as stored, in uint16; white-is-zero is turned over."""
    values = (np.arange(48 * 64).reshape(48, 64) % (most + 1)).astype(np.uint16)
    stored = most - values if white_is_zero else values
    found = decode_image(make_tiff(stored, bits=bits, photometric=0 if white_is_zero else 1))
    want = values * (255 // most) if bits <= 8 else values
    assert found.dtype == (np.uint8 if bits <= 8 else np.uint16)
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_orientation(orientation: int) -> None:
    """A picture is turned as its orientation says (TIFF 6.0, page 36)."""
    want = {
        1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T, 6: np.rot90(GREY, -1),
        7: GREY[::-1, ::-1].T, 8: np.rot90(GREY),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(decode_image(make_tiff(GREY, orientation=orientation)), want)


def test_tiff_palette_and_alpha() -> None:
    """A palette's 16-bit colours become 8 bits, one of 8-bit values is taken as it is, alpha is dropped."""
    want = np.stack([255 - GREY, np.zeros_like(GREY), GREY], axis=2)
    np.testing.assert_array_equal(decode_image(make_tiff(GREY, palette=PALETTE)), want)
    np.testing.assert_array_equal(decode_image(make_tiff(GREY, palette=[value >> 8 for value in PALETTE])), want)
    alpha = np.full((48, 64, 1), 7, np.uint8)
    np.testing.assert_array_equal(decode_image(make_tiff(np.concatenate([RGB, alpha], axis=2))), BGR)
    np.testing.assert_array_equal(decode_image(make_tiff(np.dstack([GREY, alpha]), photometric=1)), GREY)


def test_tiff_pages() -> None:
    """A second page is refused; a thumbnail, which says that it is one, is not a page."""
    small = np.ascontiguousarray(GREY[::4, ::4])
    _refused(make_tiff(GREY, following=make_tiff(small)), "several pages")
    np.testing.assert_array_equal(decode_image(make_tiff(GREY, following=make_tiff(small, subfile=1))), GREY)
    np.testing.assert_array_equal(
        decode_image(make_tiff(small, subfile=1, following=make_tiff(GREY[:1, :8]))), GREY[:1, :8]
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extra": {339: ("H", [3])}}, "signed or floating-point"),
        ({"extra": {339: ("H", [2])}}, "signed or floating-point"),
        ({"extra": {259: ("H", [7])}}, "compression JPEG"),
        ({"extra": {259: ("H", [4])}}, "compression CCITT"),
        ({"extra": {259: ("H", [999])}}, "compression number 999"),
        ({"photometric": 6}, "colours of kind 6"),
        ({"extra": {258: ("H", [24])}}, "24 bits"),
        ({"compression": 8, "extra": {317: ("H", [3])}}, "predictor 3"),
        ({"extra": {256: ("I", [0])}}, "0x48"),
        ({"extra": {278: ("I", [5])}}, "1 of 10 strips"),
        ({"extra": {273: ("I", [1 << 30])}}, "beyond the end of the file"),
        ({"palette": PALETTE[:30]}, "palette has 30 of 768"),
    ],
)
def test_tiff_that_is_not_read_says_why(changes: dict[str, object], reason: str) -> None:
    """Layouts that cannot be decoded whole are refused by name."""
    _refused(make_tiff(GREY, **changes), reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", [5, 8, 32773])
def test_tiff_with_zeros_in_a_strip_is_refused(compression: int) -> None:
    """64 bytes of zeros in compressed strips are a fault, and so is a strip that ends early."""
    whole = make_tiff(draw_scene(96, 96), compression=compression, rows=8)
    for place in (0.2, 0.4, 0.6, 0.8):
        _refused(punch_hole(whole, place), "damaged|truncated")
        _refused(whole[: round(len(whole) * place)], "damaged|truncated")


def test_lzw_round_trip_over_all_code_widths() -> None:
    """The LZW decoder follows the width of the codes up to 12 bits and back."""
    raw = np.random.default_rng(3).integers(0, 40, 60_000, np.uint8).tobytes()
    assert unpack_lzw(pack_lzw(raw), len(raw)) == raw
    assert unpack_lzw(pack_lzw(raw)[:-40], len(raw)) is None
    assert unpack_lzw(pack_lzw(raw), len(raw) - 1) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        (),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    ],
)
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("size", [(96, 96), (97, 83), (7, 9), (1, 1), (160, 17)])
def test_whole_jpeg_is_read_and_a_damaged_one_refused(
    flags: tuple[int, ...], colour: bool, size: tuple[int, int]
) -> None:
    """Every kind of JPEG is decoded as OpenCV does, at any size and quality; cut, with a forged end, it is refused."""
    for quality in (10, 90, 100):
        scene = draw_scene(*size) if colour else draw_scene(*size)[:, :, 1]
        data = make_jpeg(scene, *flags, quality=quality)
        np.testing.assert_array_equal(decode_image(data), cv2.imdecode(np.frombuffer(data, np.uint8), -1))
        np.testing.assert_array_equal(decode_image(data + b"behind the end"), decode_image(data))
        if min(size) > 16:
            for share in (0.2, 0.5, 0.9):
                _refused(forge_jpeg_end(data, share), "damaged|truncated")
                _refused(data[: round(len(data) * share)], "damaged|truncated")


def test_flat_jpeg_is_read_and_its_forged_end_refused() -> None:
    """If blocks take only a few bits, few missing ones stay unnoticed."""
    flat = np.full((240, 320), 90, np.uint8)
    for flags in ((), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)):
        data = make_jpeg(flat, *flags)
        assert decode_image(data).shape == (240, 320)
        _refused(forge_jpeg_end(data, 0.8), "damaged|truncated")


@pytest.mark.parametrize("quality", [50, 90])
def test_jpeg_with_a_hole_of_zeros_is_refused(quality: int) -> None:
    """Zeros within the compressed data are a fault wherever they are."""
    data = make_jpeg(draw_scene(240, 320), quality=quality)
    for place in np.linspace(0.2, 0.9, 15):
        _refused(punch_hole(data, float(place)), "damaged|truncated|restart")


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
@pytest.mark.parametrize("quality", [5, 75, 100])
def test_smooth_pictures_are_no_holes(flags: tuple[int, ...], quality: int) -> None:
    """Gradients, flat areas and checkerboards, whose data is full of zeros and repeats, are read."""
    ramp = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))
    board = np.kron((np.indices((15, 20)).sum(0) % 2 * 255).astype(np.uint8), np.ones((16, 16), np.uint8))
    for picture in (ramp, np.dstack([ramp, ramp, 255 - ramp]), board, np.zeros_like(ramp), np.full_like(ramp, 255)):
        assert decode_image(make_jpeg(picture, *flags, quality=quality)).shape == picture.shape


def test_jpeg_with_lost_restart_intervals_is_refused() -> None:
    """A restart interval that is missing, or twice there, is a fault; libjpeg would paint over it."""
    data = make_jpeg(draw_scene(96, 96), cv2.IMWRITE_JPEG_RST_INTERVAL, 3)
    first, second = data.find(b"\xff\xd0"), data.find(b"\xff\xd1")
    assert 0 < first < second
    _refused(data[:first] + data[second:], "restart markers")
    _refused(data[:second] + data[first:], "restart markers")
    _refused(data[: first + 10] + data[second:], "damaged|truncated")
    _refused(data[:second] + b"\xff\xd3" + data[second + 2 :], "restart markers")


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4"])
def test_jpeg_with_a_hole_in_its_tables_is_refused(marker: bytes) -> None:
    """Zeros in a quantization or Huffman table are a fault; libjpeg would decode with them."""
    data = make_jpeg(BGR)
    place = data.find(marker) + 30
    _refused(data[:place] + bytes(8) + data[place + 8 :], "tables are damaged")


def test_jpeg_of_other_kinds_is_refused() -> None:
    """Four components, 12 bits, arithmetic coding and lossless JPEG are named."""
    data = bytearray(make_jpeg(BGR))
    at = data.find(b"\xff\xc0")
    for place, value, reason in ((at + 4, 12, "12 bits"), (at + 1, 0xC9, "arithmetic"), (at + 1, 0xC3, "lossless")):
        changed = data.copy()
        changed[place] = value
        _refused(bytes(changed), reason)


def test_jpeg_is_turned_by_its_exif_orientation() -> None:
    """EXIF orientation 6 turns the picture by a quarter, without harm to the checks."""
    plain = make_jpeg(BGR)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert decode_image(data).shape == (64, 48, 3)
    _refused(forge_jpeg_end(data, 0.5), "damaged|truncated")


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (make_png(GREY, 0), GREY),
        (make_png(DEEP, 0), DEEP),
        (make_png(RGB, 2), BGR),
        (make_png(DEEP_BGR[:, :, ::-1], 2), DEEP_BGR),
        (make_png(GREY // 85, 0, bits=2), GREY // 85 * 85),
        (make_png(GREY // 17, 0, bits=4), GREY // 17 * 17),
        (make_png(GREY // 128, 0, bits=1), GREY // 128 * 255),
        (make_png(np.dstack([RGB, GREY]), 6), BGR),
        (make_png(np.dstack([GREY, BGR[:, :, 0]]), 4), np.dstack([GREY] * 3)),
        (
            make_png(GREY // 128, 3, bits=1, palette=bytes([0, 0, 0, 120, 10, 20])),
            (GREY // 128)[:, :, None] * np.array([20, 10, 120], np.uint8),
        ),
    ],
    ids=["grey", "grey16", "rgb", "rgb16", "grey2", "grey4", "grey1", "rgba", "la", "palette"],
)
def test_png_layouts(data: bytes, want: Picture) -> None:
    """Each PNG layout keeps its depth and its colours; alpha is dropped."""
    found = decode_image(data)
    assert found.dtype == want.dtype
    np.testing.assert_array_equal(found, want)


def test_png_that_is_not_whole_is_refused() -> None:
    """A changed byte, a cut, rows that are missing and animation are faults."""
    data = make_png(RGB, 2)
    for place in range(8, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x10
        _refused(bytes(changed), "PNG")
        _refused(data[:place], "PNG")
    _refused(make_png(RGB, 2, missing_rows=3), "its data is short")
    _refused(make_png(RGB, 2, chunks=[(b"acTL", bytes(8))]), "several pages")


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"P5\n# made by hand\n3 2\n100\n" + bytes([0, 50, 100, 1, 99, 25]), [[0, 128, 255], [3, 252, 64]]),
        (b"P5 3 2 255\n" + bytes([0, 50, 100, 1, 99, 25]), [[0, 50, 100], [1, 99, 25]]),
        (b"P2\n3 2\n15\n0 1 2\n13 14 15\n", [[0, 17, 34], [221, 238, 255]]),
        (b"P5\n2 1\n4095\n\x00\x01\x0f\xff", [[1, 4095]]),
        (b"P4\n9 1\n\x80\x00", [[0, 255, 255, 255, 255, 255, 255, 255, 255]]),
        (b"P1\n2 2\n10\n0 1\n", [[0, 255], [255, 0]]),
        (b"P6\n1 1\n255\n\x01\x02\x03", [[[3, 2, 1]]]),
        (b"P3\n1 1\n51\n1 2 51\n", [[[255, 10, 5]]]),
    ],
)
def test_pnm_is_scaled_by_its_maximum(data: bytes, want: list[object]) -> None:
    """A maximum below 255 is white; 16-bit values stay unchanged."""
    np.testing.assert_array_equal(decode_image(data), want)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P5\n3 2\n255\n12345", "5 of 6 values"),
        (b"P5\n3 2\n100\n" + bytes([0, 50, 101, 1, 99, 25]), "value of 101"),
        (b"P5\n3 2\n0\n123456", "maximum 0"),
        (b"P5\n3 2\n70000\n123456", "maximum 70000"),
        (b"P5\n3\n", "header"),
        (b"P2\n2 1\n255\n1 x\n", "a value in it is not a number"),
        (b"P5 1 1 255\n1P5 1 1 255\n1", "several pages"),
    ],
)
def test_pnm_that_is_not_whole_is_refused(data: bytes, reason: str) -> None:
    """Cut files, impossible values and several pictures in one file are faults."""
    _refused(data, reason)


def test_bmp_layouts_and_damage() -> None:
    """BMP is read bottom up and top down, grey as grey; cut or compressed files are refused."""
    data = cv2.imencode(".bmp", BGR)[1].tobytes()
    np.testing.assert_array_equal(decode_image(data), BGR)
    np.testing.assert_array_equal(decode_image(cv2.imencode(".bmp", GREY)[1].tobytes()), GREY)
    upside = data[:22] + struct.pack("<i", -48) + data[26:]
    np.testing.assert_array_equal(decode_image(upside), BGR[::-1])
    _refused(data[:-40], "truncated")
    _refused(data[:20], "truncated")
    _refused(data[:30] + struct.pack("<I", 1) + data[34:], "compressed")
    _refused(data[:28] + struct.pack("<H", 7) + data[30:], "header")


def test_webp_layouts_and_damage() -> None:
    """Lossy and lossless WebP are read; a cut file is refused."""
    lossless = cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    np.testing.assert_array_equal(decode_image(lossless), BGR)
    assert decode_image(cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()).shape == BGR.shape
    for share in (0.1, 0.5, 0.99):
        _refused(lossless[: round(len(lossless) * share)], "WebP|RIFF")


def test_lossless_webp_with_a_hole_is_refused() -> None:
    """Zeros within a lossless picture are a fault; flat pictures have none."""
    for picture in (BGR, np.zeros((600, 600, 3), np.uint8), np.full((600, 600, 3), 255, np.uint8)):
        data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
        np.testing.assert_array_equal(decode_image(data), picture)
    data = cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    _refused(data[:600] + bytes(40) + data[640:], "all zeros")


EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def test_png_and_webp_are_turned_by_their_orientation() -> None:
    """EXIF orientation 6 turns PNG and WebP too, with every release of OpenCV."""
    np.testing.assert_array_equal(decode_image(make_png(RGB, 2, chunks=[(b"eXIf", EXIF)])), np.rot90(BGR, -1))
    plain = cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + bytes([63, 0, 0, 47, 0, 0])
    body = b"WEBP" + extended + plain[12:] + b"EXIF" + struct.pack("<I", len(EXIF)) + EXIF
    turned = decode_image(b"RIFF" + struct.pack("<I", len(body)) + body)
    np.testing.assert_array_equal(turned, np.rot90(BGR, -1))


def _bmp(bits: int, rows: list[bytes], compression: int = 0, more: bytes = b"", colours: int = 0) -> bytes:
    start, data = 54 + len(more), b"".join(row + bytes(-len(row) % 4) for row in reversed(rows))
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    sizes = struct.pack("<IiiHHIIiiII", 40, 8, len(rows), 1, bits, compression, len(data), 0, 0, colours, 0)
    return head + sizes + more + data


def test_bmp_depths() -> None:
    """1, 4, 16 and 32 bits a pixel, palettes and the usual masks give the colours that they represent."""
    values = np.arange(32).reshape(4, 8)
    five = [(row << 10 | row << 5 | row).astype("<u2").tobytes() for row in values]
    assert decode_image(_bmp(16, five))[1, 3].tolist() == [88, 88, 88]
    six = [(row << 11 | row << 6 | row).astype("<u2").tobytes() for row in values]
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    assert decode_image(_bmp(16, six, 3, masks))[1, 3].tolist() == [88, 88, 88]
    _refused(_bmp(16, six, 3, struct.pack("<III", 0xF00, 0xF0, 0xF)), "rare layout")
    palette = bytes(value for number in range(16) for value in (number * 17, number * 10, number * 5, 0))
    four = [bytes(int(a) % 16 << 4 | int(b) % 16 for a, b in zip(row[::2], row[1::2], strict=True)) for row in values]
    assert decode_image(_bmp(4, four, 0, palette, 16))[1, 3].tolist() == [187, 110, 55]
    one = [b"\xa0"] * 4
    assert decode_image(_bmp(1, one, 0, bytes([0, 0, 0, 0, 255, 255, 255, 0]), 2)).max() == 255
    alpha = [np.stack([row, row + 1, row + 2, row * 0], axis=1).astype(np.uint8).tobytes() for row in values]
    assert decode_image(_bmp(32, alpha))[1, 3].tolist() == [11, 12, 13]


def test_huge_picture_is_refused_by_its_header() -> None:
    """A small file that represents a huge picture is refused before it takes memory, and so is a size not accepted."""
    huge = make_png(np.zeros((1, 1), np.uint8), 0)
    header = struct.pack(">II", 18_000, 18_000) + huge[24:29]
    data = huge[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + huge[33:]
    _refused(data, f"more than the limit of {MOST_PIXELS:,}")

    def accepts(width: int, height: int) -> None:
        raise ImageError(f"{width} by {height} is too large")

    for whole in (make_png(RGB, 2), make_tiff(RGB), make_jpeg(BGR), cv2.imencode(".bmp", BGR)[1].tobytes()):
        with pytest.raises(ImageError, match="64 by 48 is too large"):
            decode_image(whole, accepts)


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (RGB, {"photometric": 1}),
        (np.dstack([GREY, GREY]), {"photometric": 1, "extra": {338: ("H", [0])}}),
        (np.dstack([RGB, GREY]), {"extra": {338: ("H", [0])}}),
        (np.dstack([RGB, GREY, GREY]), {"extra": {338: ("H", [2, 0])}}),
    ],
    ids=["RGB called grey", "two greys", "RGB and infrared", "RGB, alpha and another"],
)
def test_tiff_with_more_channels_than_are_judged_is_refused(picture: Picture, options: dict[str, Any]) -> None:
    """Channels that are neither colour nor alpha would not be judged."""
    _refused(make_tiff(picture, **options), "channels, of which")


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "webp", "pgm"])
def test_several_pictures_behind_each_other_are_refused(kind: str) -> None:
    """Of pictures that were written into one file one behind the other only the first would be judged."""
    make = {"png": lambda: make_png(RGB, 2), "jpeg": lambda: make_jpeg(BGR)} | UNCHECKED
    data = make[kind]()
    _refused(data + data, "several pages")
    if kind != "pgm":
        _refused(data + bytes(16) + data, "several pages")
    np.testing.assert_array_equal(decode_image(data + b"camera notes" * 9), decode_image(data))


def test_a_smaller_jpeg_behind_another_is_a_preview() -> None:
    """Phones put a smaller picture or a gain map behind the first; that is not refused."""
    data = make_jpeg(BGR)
    np.testing.assert_array_equal(decode_image(data + make_jpeg(BGR[::2, ::2])), decode_image(data))
    assert decode_image(data + data[:40]).shape == BGR.shape


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a" + bytes(20), "a GIF file"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC file"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "an AVIF file"),
        (b"\xff\x4f\xff\x51" + bytes(20), "a JPEG 2000 file"),
        (b"P7\nWIDTH 2\n", "a PAM file"),
        (b"\n <html><title>404</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_other_formats_are_named(data: bytes, name: str) -> None:
    """The message names the kind of an unsupported file if its first bytes show it."""
    _refused(data, f"the file is {name}, not a JPEG")


def _interlaced(picture: Picture, *, missing: int = 0) -> bytes:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(b"\0" + row.tobytes() for y, x, down, right in passes for row in picture[y::down, x::right])
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows[: len(rows) - missing])), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    "data",
    [
        _interlaced(GREY),
        make_png(GREY, 0, chunks=[(b"gAMA", struct.pack(">I", 22727))]),
        make_png(GREY, 0, chunks=[(b"tRNS", struct.pack(">H", int(GREY[0, 0])))]),
        make_png(GREY, 0, chunks=[(b"bKGD", struct.pack(">H", 9)), (b"sBIT", b"\x06")]),
        make_png(GREY, 0) + b"appended",
    ],
    ids=["interlaced", "gamma", "transparent grey", "background", "appended"],
)
def test_png_values_are_those_of_the_file(data: bytes) -> None:
    """Interlacing, gamma, a transparent value and a background change no pixel."""
    np.testing.assert_array_equal(decode_image(data), GREY)


def test_interlaced_png_that_is_short_is_refused() -> None:
    """Missing data of the last pass is a fault."""
    _refused(_interlaced(GREY, missing=300), "its data is short")


def _mutate(data: bytes, random: np.random.Generator) -> bytes:
    place, length = int(random.integers(0, len(data))), int(random.integers(1, 80))
    kind = int(random.integers(0, 6))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place] + bytes(length) + data[place + length :]
    if kind == 3:
        return data[:place] + random.bytes(length) + data[place + length :]
    if kind == 4:
        return data[:place] + random.bytes(length) + data[place:]
    return data[:place] + bytes([data[place] ^ (1 << int(random.integers(0, 8)))]) + data[place + 1 :]


CHECKED: dict[str, Callable[[], bytes]] = {
    "png": lambda: make_png(RGB, 2),
    "png16": lambda: make_png(DEEP, 0),
    "tiff deflate": lambda: make_tiff(RGB, compression=8, rows=6),
}
UNCHECKED: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: make_jpeg(BGR),
    "jpeg restarts": lambda: make_jpeg(BGR, cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "jpeg progressive": lambda: make_jpeg(BGR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "tiff": lambda: make_tiff(RGB, planar=True),
    "tiff lzw": lambda: make_tiff(GREY, compression=5, tile=16),
    "tiff packbits": lambda: make_tiff(GREY, compression=32773),
    "tiff palette": lambda: make_tiff(GREY, palette=PALETTE),
    "bmp": lambda: cv2.imencode(".bmp", BGR)[1].tobytes(),
    "pgm": lambda: b"P5\n64 48\n255\n" + GREY.tobytes(),
    "ppm": lambda: b"P6\n64 48\n255\n" + RGB.tobytes(),
    "plain pgm": lambda: b"P2\n64 48\n255\n" + " ".join(map(str, GREY.ravel())).encode(),
    "webp": lambda: cv2.imencode(".webp", BGR)[1].tobytes(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*CHECKED, *UNCHECKED])
def test_changed_bytes_give_a_frame_or_an_image_error(kind: str) -> None:
    """For any change of a file's bytes, decoding gives a frame or an ImageError of one sentence.

    Formats with checksums never give another picture; a file that was cut never gives one at all.
    """
    whole = (CHECKED | UNCHECKED)[kind]()
    want = decode_image(whole)
    random = np.random.default_rng(len(kind))
    for _ in range(250):
        changed = _mutate(whole, random)
        try:
            found = decode_image(changed)
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most end here
            continue
        assert found.dtype in (np.uint8, np.uint16)
        assert found.ndim == 2 or found.shape[2] == 3
        assert found.size > 0
        is_cut = len(changed) < len(whole) - 24 and whole.startswith(changed)
        assert not is_cut or np.array_equal(found, want)
        if kind == "png":
            np.testing.assert_array_equal(found, want)


def _make_bmp(indices: Picture, bits: int, colours: int, *, declared: int | None = None, behind: bytes = b"") -> bytes:
    """Return a BMP file with a palette of greys, which is as long as its header says."""
    height, width = indices.shape
    spread = (indices[::-1, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    pixels = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes() + behind
    palette = b"".join(bytes([value, value, value, 0]) for value in np.linspace(0, 255, colours).astype(int))
    start, used = 54 + len(palette), colours if declared is None else declared
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, used, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_with_a_colour_that_its_palette_lacks_is_refused(bits: int) -> None:
    """libpng gives such a pixel any colour; a palette of the shortest sufficient length is read."""
    indices = (np.arange(48 * 64).reshape(48, 64) % (1 << bits)).astype(np.uint8)
    most = (1 << bits) - 1
    palette = bytes(value % 256 for value in range(3 * most))
    _refused(make_png(indices, 3, bits=bits, palette=palette), f"uses colour {most} of a palette of {most}")
    found = decode_image(make_png(np.minimum(indices, most - 1), 3, bits=bits, palette=palette))
    assert found.shape == (48, 64, 3)


@pytest.mark.parametrize(("bits", "colours"), [(1, 1), (4, 11), (8, 100)])
def test_bmp_with_a_colour_that_its_palette_lacks_is_refused(bits: int, colours: int) -> None:
    """OpenCV takes black, or bytes of the picture, for such a colour."""
    indices = (np.arange(48 * 61).reshape(48, 61) % colours).astype(np.uint8)
    assert decode_image(_make_bmp(indices, bits, colours)).shape == (48, 61)
    indices[7, 60] = colours
    _refused(_make_bmp(indices, bits, colours), f"uses colour {colours} of a palette of {colours}")
    _refused(_make_bmp(indices, bits, 0, declared=0), "of a palette of 0")


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_the_size_that_is_checked_first_is_that_of_the_turned_picture(kind: str) -> None:
    """A camera held upright stores 64x48 and an orientation: the picture is 48x64, and the model is made for that."""
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    if kind == "jpeg":
        data = make_jpeg(BGR, quality=100)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + data[2:]
    elif kind == "png":
        data = make_png(RGB, 2, chunks=[(b"eXIf", exif)])
    elif kind == "tiff":
        data = make_tiff(RGB, orientation=6)
    else:
        plain = cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
        head = struct.pack("<B3xI", 8, 0)[:4] + (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
        body = b"WEBPVP8X" + struct.pack("<I", 10) + head + plain[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    seen: list[tuple[int, int]] = []
    found = decode_image(data, lambda width, height: seen.append((width, height)))
    assert seen == [(48, 64)]
    assert np.abs(found.astype(int) - np.rot90(BGR, -1)).max() <= (60 if kind == "jpeg" else 0)


def _change_tag(data: bytes, tag: int, value: int, place: int = 0) -> bytes:
    """Return a little-endian TIFF file with another value of a tag."""
    changed = bytearray(data)
    first = struct.unpack_from("<I", data, 4)[0]
    for at in range(first + 2, first + 2 + 12 * struct.unpack_from("<H", data, first)[0], 12):
        number, kind, count = struct.unpack_from("<HHI", data, at)
        if number == tag:
            step = 2 if kind == 3 else 4
            start = at + 8 if step * count <= 4 else struct.unpack_from("<I", data, at + 8)[0]
            struct.pack_into("<H" if kind == 3 else "<I", changed, start + step * place, value)
    return bytes(changed)


STRIPS = make_tiff(GREY, rows=8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_change_tag(STRIPS, 273, 8, 1), "overlap at byte 8"),
        (_change_tag(STRIPS, 273, 0, 0), "overlap at byte 0"),
        (_change_tag(STRIPS, 273, 100, 2), "overlap at byte"),
        (_change_tag(_change_tag(make_tiff(GREY), 257, 40), 278, 40), "more rows than the picture"),
        (_change_tag(make_tiff(GREY), 256, 60), "more rows than the picture"),
        (_change_tag(make_tiff(DEEP), 258, 8), "more rows than the picture"),
        (make_tiff(GREY, orientation=9), "its orientation is 9"),
        (make_tiff(GREY, extra={32997: ("I", [16])}), "several pages"),
    ],
    ids=["same strip", "strip in the header", "strips overlap", "height", "width", "depth", "orientation", "z-stack"],
)
def test_tiff_with_changed_tags_is_refused(data: bytes, reason: str) -> None:
    """Tags have no checksum, but strips that overlap or are too long give a changed one away."""
    _refused(data, reason)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_tiff_whose_last_strip_is_filled_up_is_read(compression: int) -> None:
    """Some programs write all strips equally long; rows after the picture are ignored."""
    full = make_tiff(np.pad(GREY, ((0, 2), (0, 0))), rows=10, compression=compression)
    np.testing.assert_array_equal(decode_image(_change_tag(full, 257, 48)), GREY)


def test_bmp_and_pnm_with_a_smaller_size_in_the_header_are_refused() -> None:
    """Neither has a checksum, but rows or columns that are left over give a changed size away."""
    bmp = cv2.imencode(".bmp", BGR)[1].tobytes()
    _refused(bmp[:22] + struct.pack("<i", 30) + bmp[26:], "bytes more than its size")
    _refused(bmp[:18] + struct.pack("<i", 60) + bmp[22:], "bytes more than its size")
    for size in ("64 30", "60 48"):
        _refused(f"P5\n{size}\n255\n".encode() + GREY.tobytes(), "bytes more than its size")


def test_pnm_after_a_transfer_as_text() -> None:
    """CR LF in the header is read, and CR before each LF among the values is noticed."""
    header = b"P5\r\n64 48\r\n255\r\n"
    np.testing.assert_array_equal(decode_image(header + GREY.tobytes()), GREY)
    mixed = GREY.copy()
    mixed[5, 5] = mixed[9, 40] = 10
    _refused(header + mixed.tobytes().replace(b"\n", b"\r\n"), "transfer as text")
    starts_low = GREY.copy()
    starts_low[0, 0] = 10
    np.testing.assert_array_equal(decode_image(b"P5\n64 48\n255\r" + starts_low.tobytes()), starts_low)


def test_a_digit_that_no_bitmap_has_is_named() -> None:
    """The value of a plain PBM is shown as the file has it."""
    _refused(b"P1\n2 1\n0 7\n", "a value of 7 and a maximum of 1")
