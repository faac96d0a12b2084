from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.sources.cameras.pixel_formats import decode_buffer

VALUES = np.array([[1, 2, 1023, 512], [0, 1021, 255, 256]], np.uint16)


def pack_stream(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Write values one bit after the other, least significant first."""
    number = sum(int(value) << (bits * place) for place, value in enumerate(values.ravel()))
    return np.frombuffer(number.to_bytes(-(-values.size * bits // 8), "little"), np.uint8)


def test_mono8_is_the_buffer_itself_but_not_its_memory() -> None:
    """Mono8 is taken as it is, into memory of the frame's own: the camera reuses its buffer."""
    buffer = np.arange(6, dtype=np.uint8)
    frame = decode_buffer(buffer, "Mono8", 3, 2)
    assert frame.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not np.shares_memory(frame, buffer)


@pytest.mark.parametrize("name", ["Mono10", "Mono12", "Mono16"])
def test_mono_of_more_than_8_bits_keeps_the_camera_s_values(name: str) -> None:
    """Values in two bytes come as uint16, not scaled."""
    frame = decode_buffer(VALUES.astype("<u2").view(np.uint8).ravel(), name, 4, 2)
    assert frame.dtype == np.uint16
    assert frame.tolist() == VALUES.tolist()


@pytest.mark.parametrize(("name", "bits"), [("Mono10p", 10), ("Mono12p", 12), ("Mono14p", 14)])
def test_bit_packed_mono_is_unpacked(name: str, bits: int) -> None:
    """Packed values are read bit by bit, also where a row ends within a byte."""
    values = VALUES[:, :3]
    assert decode_buffer(pack_stream(values, bits), name, 3, 2).tolist() == values.tolist()


@pytest.mark.parametrize(("name", "bits"), [("Mono10Packed", 10), ("Mono12Packed", 12)])
def test_gige_vision_pairs_are_unpacked(name: str, bits: int) -> None:
    """Two values in three bytes: the high eight bits of each outside, the low bits of both in the middle."""
    low = bits - 8
    first, second = VALUES.ravel()[0::2], VALUES.ravel()[1::2]
    middle = (first & (2**low - 1)) | ((second & (2**low - 1)) << 4)
    buffer = np.stack([first >> low, middle, second >> low], axis=1).astype(np.uint8).ravel()
    assert decode_buffer(buffer, name, 4, 2).tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ("name", "pixel"),
    [("RGB8", [30, 20, 10]), ("BGR8", [10, 20, 30]), ("RGBa8", [30, 20, 10, 255]), ("BGRa8", [10, 20, 30, 255])],
)
def test_colour_comes_as_bgr(name: str, pixel: list[int]) -> None:
    """Each channel order of a camera becomes BGR without alpha."""
    frame = decode_buffer(np.array(pixel * 4, np.uint8), name, 2, 2)
    assert frame.shape == (2, 2, 3)
    assert frame[1, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize("tile", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("bits", [8, 12])
def test_bayer_tile_gives_the_colour_seen(tile: str, bits: int) -> None:
    """A surface of one colour behind each Bayer tile is that colour again."""
    colour = {"R": 200, "G": 120, "B": 40}
    second = {"RG": "GB", "GR": "BG", "GB": "RG", "BG": "GR"}[tile]
    pattern = np.array([[colour[name] for name in tile], [colour[name] for name in second]], np.uint16)
    mosaic = np.tile(pattern, (4, 4))
    buffer = mosaic.astype(np.uint8).ravel() if bits == 8 else pack_stream(mosaic, bits)
    frame = decode_buffer(buffer, f"Bayer{tile}{bits}{'' if bits == 8 else 'p'}", 8, 8)
    assert frame.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert frame[4, 4].tolist() == [40, 120, 200]


def test_row_padding_is_left_out() -> None:
    """Bytes after each row are not pixels."""
    buffer = np.array([1, 2, 99, 3, 4, 99], np.uint8)
    assert decode_buffer(buffer, "Mono8", 2, 2, padding=1).tolist() == [[1, 2], [3, 4]]
    rows = [np.append(pack_stream(row, 12), np.uint8(99)) for row in VALUES]
    assert decode_buffer(np.concatenate(rows), "Mono12p", 4, 2, padding=1).tolist() == VALUES.tolist()


def test_short_buffer_is_refused() -> None:
    """A buffer that does not contain the whole picture is an error, not a picture with old pixels at its end."""
    with pytest.raises(ImageError, match=r"5 bytes, and the picture needs 6"):
        decode_buffer(np.zeros(5, np.uint8), "Mono8", 3, 2)


@pytest.mark.parametrize("name", ["YCbCr411_8", "Coord3D_C16", "Mono8p", "0x81234567"])
def test_other_formats_are_refused_with_the_cure(name: str) -> None:
    """A format that shows no plain picture is named, with what to set."""
    with pytest.raises(ImageError, match=f"{name}.*pixel_format"):
        decode_buffer(np.zeros(1000, np.uint8), name, 2, 2)
