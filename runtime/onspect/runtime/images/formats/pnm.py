"""PBM, PGM and PPM files, decoded here: OpenCV does not scale by the maximum of the file."""

from __future__ import annotations

import re

import numpy as np

from onspect.runtime.errors import ImageError
from onspect.runtime.images.formats import SEVERAL, Accepts, Frame

_BLANK = rb"(?:\s|#[^\r\n]*[\r\n])"
_NUMBERS = {
    2: re.compile(rb"P[1-6]%b+(\d{1,9})%b+(\d{1,9})%b" % (_BLANK, _BLANK, rb"(?:#[^\r\n]*)?\s")),
    3: re.compile(rb"P[1-6]%b+(\d{1,9})%b+(\d{1,9})%b+(\d{1,9})%b" % (_BLANK, _BLANK, _BLANK, rb"(?:#[^\r\n]*)?\s")),
}
_MOST_HEADER = 1 << 16


def decode(data: bytes, accepts: Accepts) -> Frame:
    """Decode a PBM, PGM or PPM file.

    A maximum below 255 is scaled to 255. 16-bit values stay as they are, as in all formats: the model has the white
    level.

    Parameters
    ----------
    data
        The bytes of the file.
    accepts
        Called with width and height; it may raise ImageError.

    Returns
    -------
    Frame
        uint8, or uint16 if the maximum of the file is above 255; HxW or HxWx3 (BGR).

    Raises
    ------
    ImageError
        If the file is truncated or damaged, or has several pictures.
    """
    number = data[1] - 48
    bitmap, plain, colour = number in (1, 4), number <= 3, number in (3, 6)
    found = _NUMBERS[2 if bitmap else 3].match(data[:_MOST_HEADER])
    if found is None:
        raise ImageError("the PNM's header is damaged; copy or capture it again")
    width, height, *rest = map(int, found.groups())
    most = rest[0] if rest else 1
    if not width or not height or not 1 <= most <= 65535:
        raise ImageError(f"the PNM's header is damaged: {width}x{height}, maximum {most}; copy or capture it again")
    accepts(width, height)
    shape = (height, width, 3) if colour else (height, width)
    content = data[found.end() :]
    if not plain:
        row = -(-width // 8) if bitmap else width * (3 if colour else 1) * (2 if most > 255 else 1)
        content = _cut_line_end(content, found[0], row * height)
        _refuse_surplus(content, row, height)
    if plain:
        values = _read_plain(content, shape, bitmap)
    elif bitmap:
        values = _read_bitmap(content, height, width)
    else:
        values = _read_binary(content, shape, most)
    if int(values.max()) > most:
        raise ImageError(f"the PNM is damaged: it has a value of {values.max()} and a maximum of {most}")
    if bitmap:
        values = 1 - values
    if most < 255:
        values = (values.astype(np.uint32) * 255 + most // 2) // most
    frame = values.astype(np.uint8 if most <= 255 else np.uint16)
    return np.ascontiguousarray(frame[:, :, ::-1]) if colour else frame


def _cut_line_end(content: bytes, header: bytes, wanted: int) -> bytes:
    """Return binary values without the second half of a CR LF after the header.

    Raises ImageError if a file with such line ends has more values than its size: a transfer as text adds a CR before
    each LF among the values too.
    """
    if header.endswith(b"\r") and content.startswith(b"\n") and len(content) > wanted:
        content = content[1:]
    if b"\r\n" in header + b"\n" and len(content) > wanted:
        raise ImageError(
            f"the PNM is damaged: it has {len(content)} of {wanted} bytes, as after a transfer as text; copy it again"
        )
    return content


def _refuse_surplus(content: bytes, row: int, height: int) -> None:
    """Raise ImageError if whole rows or columns follow the picture, because then the header has a wrong size.

    Other bytes after the picture are notes of a camera.
    """
    surplus = len(content) - row * height
    is_whole = surplus % row == 0 or surplus % height == 0
    if 0 < surplus < row * height and is_whole and content[row * height :].strip(b"\0\r\n "):
        raise ImageError(f"the PNM is damaged: it has {surplus} bytes more than its size; copy or capture it again")


def _read_plain(content: bytes, shape: tuple[int, ...], bitmap: bool) -> Frame:
    content = re.sub(rb"#[^\r\n]*", b" ", content)
    if bitmap:
        content = b" ".join(bytes([digit]) for digit in content if not chr(digit).isspace())
    try:
        values = np.array(content.split(), np.uint32)
    except (ValueError, OverflowError) as error:
        raise ImageError("the PNM is damaged: a value in it is not a number; copy or capture it again") from error
    return _shape(values, shape)


def _read_bitmap(content: bytes, height: int, width: int) -> Frame:
    row = -(-width // 8)
    packed = _shape(np.frombuffer(content, np.uint8), (height, row))
    return np.unpackbits(packed, axis=1)[:, :width]


def _read_binary(content: bytes, shape: tuple[int, ...], most: int) -> Frame:
    wide = most > 255
    return _shape(
        np.frombuffer(content[: len(content) // 2 * 2] if wide else content, ">u2" if wide else np.uint8), shape
    )


def _shape(values: Frame, shape: tuple[int, ...]) -> Frame:
    wanted = int(np.prod(shape))
    if len(values) < wanted:
        raise ImageError(f"the PNM is truncated: it has {len(values)} of {wanted} values")
    if len(values) >= 2 * wanted:
        raise ImageError(SEVERAL)
    return values[:wanted].reshape(shape)
