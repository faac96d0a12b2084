"""From an image file or a camera frame to the uint8 array that the graph takes; training uses this very code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.files import describe_os_error
from onspect.runtime.model_file import Preprocess

Frame = NDArray[Any]
"""A frame: HxW (mono) or HxWx3 (BGR), uint8 or uint16."""


def read_image(path: Path | str) -> Frame:
    """Read an image file as it is stored: HxW or HxWx3 (BGR), uint8 or uint16; an alpha channel is dropped.

    Raises ImageError where it cannot be read, is empty, truncated, or no image.
    """
    try:
        data = Path(path).read_bytes()  # not cv2.imread: on Windows it cannot open every path
    except OSError as error:
        raise ImageError(f"cannot read the file: {describe_os_error(error)}") from error
    except ValueError as error:  # a path that no file can have, such as one with a zero byte
        raise ImageError(f"cannot read the file: {error}") from error
    return decode_image(data)


def decode_image(data: bytes) -> Frame:
    """Decode an image file's bytes; shapes, dtypes and errors as `read_image`."""
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    if _is_cut_jpeg(data):
        raise ImageError(f"the JPEG is truncated: it ends after {len(data)} bytes without an end marker")
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot decode the file: {error.err}") from error
    if frame is None:
        raise ImageError(f"not an image that OpenCV can decode, or a truncated one ({len(data)} bytes)")
    return frame


def prepare(frame: Frame, recipe: Preprocess) -> NDArray[np.uint8]:
    """Turn a frame into one model input: uint8 [height, width, channels] as the recipe says, contiguous.

    Colour becomes mono by OpenCV's weights (0.299 R, 0.587 G, 0.114 B), mono becomes colour by repetition. Shrinking
    averages areas, enlarging is bilinear. A uint16 value v becomes v * 255 / white_level, rounded, at most 255.
    Raises ImageError where the frame is not one that the model was trained for.
    """
    check_frame(frame, recipe)
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if frame.ndim == 3 and recipe.channels == 1:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    elif frame.ndim == 2 and recipe.channels == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    height, width = frame.shape[:2]
    if (width, height) != (recipe.width, recipe.height):
        shrinks = width >= recipe.width and height >= recipe.height
        frame = cv2.resize(
            frame, (recipe.width, recipe.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=255.0 / recipe.white_level)
    return np.ascontiguousarray(frame.reshape(recipe.height, recipe.width, recipe.channels))


def check_frame(frame: Frame, recipe: Preprocess) -> None:
    """Raise ImageError where a frame's dtype, channels or size are not what the recipe accepts."""
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"the frame is {type(frame).__name__}, not a numpy array")
    if frame.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"the frame's dtype is {frame.dtype}; convert it to uint8 or uint16")
    if frame.ndim not in (2, 3) or frame.size == 0:
        raise ImageError(f"the frame's shape is {frame.shape}; give height x width or height x width x 3")
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    if channels not in recipe.source.channels:
        expected = " or ".join(str(count) for count in recipe.source.channels)
        raise ImageError(
            f"the image has {channels} channel{'s' * (channels != 1)}, "
            f"the model was trained on images with {expected}; "
            "use the camera mode of the training images, or train on images like this one"
        )
    height, width = frame.shape[:2]
    limits = recipe.source
    for side, value, accepted in (("wide", width, limits.width), ("high", height, limits.height)):
        if accepted is not None and not accepted[0] <= value <= accepted[1]:
            span = f"{accepted[0]}" if accepted[0] == accepted[1] else f"{accepted[0]} to {accepted[1]}"
            raise ImageError(
                f"the image is {width}x{height} pixels, the model accepts images {span} pixels {side}; "
                "use the camera mode of the training images, or train with --any-size"
            )


def _is_cut_jpeg(data: bytes) -> bool:
    """Tell whether JPEG data lacks its end marker after the first scan; OpenCV 4 would paint the rest grey.

    Header segments are skipped by their lengths, since a thumbnail inside them has an end marker of its own.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:
            return data.find(b"\xff\xd9", position) < 0
        if data[position + 1] == 0xFF:
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True
