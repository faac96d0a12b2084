"""Camera buffers to frames, for the picture formats of the GenICam Pixel Format Naming Convention (PFNC).

Values stay as the camera gives them: Mono12 gives 0 to 4095 in uint16, and the model's recipe has the white level.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame

_NAME = re.compile(
    r"(?P<layout>Mono|Bayer(?P<tile>RG|GR|GB|BG)|RGBa?|BGRa?)(?P<bits>8|10|12|14|16)(?P<packing>p|Packed)?"
)
_CHANNELS = {"RGB": 3, "BGR": 3, "RGBa": 4, "BGRa": 4}
_BAYER = {  # PFNC names the first two pixels of the first row; older names of OpenCV name those of the second row
    "RG": cv2.COLOR_BayerRGGB2BGR,
    "GR": cv2.COLOR_BayerGRBG2BGR,
    "GB": cv2.COLOR_BayerGBRG2BGR,
    "BG": cv2.COLOR_BayerBGGR2BGR,
}
_COLOUR = {"RGB": cv2.COLOR_RGB2BGR, "RGBa": cv2.COLOR_RGBA2BGR, "BGRa": cv2.COLOR_BGRA2BGR}


@dataclass(frozen=True)
class _Format:
    layout: str
    tile: str | None
    bits: int
    packing: str

    @property
    def channels(self) -> int:
        return _CHANNELS.get(self.layout, 1)

    @property
    def bits_stored(self) -> int:
        """Bits of one value in the buffer; GigE Vision's two 10-bit values in three bytes take 12 each."""
        if self.packing == "Packed":
            return 12
        return self.bits if self.packing == "p" or self.bits == 8 else 16


def decode_buffer(data: NDArray[np.uint8], name: str, width: int, height: int, padding: int = 0) -> Frame:
    """Convert a camera's buffer to a frame with memory of its own; an alpha channel is dropped.

    Parameters
    ----------
    data
        The buffer, uint8 [n].
    name
        PFNC name of the format, such as ``Mono8``, ``BayerRG12p`` or ``RGBa8``.
    width
        Width in pixels.
    height
        Height in pixels.
    padding
        Bytes after each row.

    Returns
    -------
    Frame
        The frame, HxW (mono) or HxWx3 (BGR), uint8 or uint16.

    Raises
    ------
    ImageError
        If the format is not supported or the buffer is too short.
    """
    pixel_format = _parse(name)
    if width < 1 or height < 1:
        raise ImageError(f"the camera announces a picture of {width} x {height} pixels")
    rows = _read_values(data, pixel_format, width * pixel_format.channels, height, padding)
    if pixel_format.tile is not None:
        return np.asarray(cv2.cvtColor(rows, _BAYER[pixel_format.tile]))
    if pixel_format.channels == 1:
        return rows
    picture = rows.reshape(height, width, pixel_format.channels)
    if pixel_format.layout == "BGR":
        return picture
    return np.asarray(cv2.cvtColor(picture, _COLOUR[pixel_format.layout]))


def _parse(name: str) -> _Format:
    match = _NAME.fullmatch(name.replace("8Packed", "8"))  # GigE Vision's older name of the same layout
    if match is None or (match["packing"] and match["bits"] in ("8", "16")):
        raise ImageError(f"the camera's pixel format {name!r} cannot be read; set pixel_format=Mono8, BayerRG8 or BGR8")
    return _Format(match["layout"], match["tile"], int(match["bits"]), match["packing"] or "")


def _read_values(data: NDArray[np.uint8], pixel_format: _Format, count: int, height: int, padding: int) -> NDArray[Any]:
    """Return the values as a [height, count] array that does not share the buffer's memory."""
    stored = pixel_format.bits_stored
    rows, length = (height, count) if padding else (1, count * height)  # packed values continue across ends of rows
    row_bytes = math.ceil(length * stored / 8)
    needed = rows * (row_bytes + padding)
    if len(data) < needed:
        raise ImageError(f"the buffer has {len(data)} bytes, and the picture needs {needed}; it came incomplete")
    stripes = data[:needed].reshape(rows, row_bytes + padding)[:, :row_bytes]
    if stored == 8:
        return np.array(stripes).reshape(height, count)
    if stored == 16:
        return np.array(stripes).view("<u2").astype(np.uint16, copy=False).reshape(height, count)
    unpack = _unpack_pairs if pixel_format.packing == "Packed" else _unpack_stream
    unpacked = [unpack(stripe, pixel_format.bits, length) for stripe in stripes]
    return (np.stack(unpacked) if padding else unpacked[0]).reshape(height, count)


def _unpack_stream(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint16]:
    """Read values that follow each other bit by bit, least significant first (PFNC's suffix p)."""
    wide = np.concatenate([data, np.zeros(2, np.uint8)]).astype(np.uint32)
    first = np.arange(count, dtype=np.int64) * bits
    place = first >> 3
    window = wide[place] | (wide[place + 1] << 8) | (wide[place + 2] << 16)
    return np.asarray((window >> (first & 7).astype(np.uint32)) & ((1 << bits) - 1), np.uint16)


def _unpack_pairs(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint16]:
    """Read GigE Vision's pairs of values in three bytes: the middle byte has the low bits of both."""
    pairs = np.concatenate([data, np.zeros(-len(data) % 3, np.uint8)]).reshape(-1, 3).astype(np.uint16)
    low = bits - 8
    mask = (1 << low) - 1
    first = (pairs[:, 0] << low) | (pairs[:, 1] & mask)
    second = (pairs[:, 2] << low) | ((pairs[:, 1] >> 4) & mask)
    return np.stack([first, second], axis=1).ravel()[:count]
