"""From a frame to the uint8 array that the graph takes; training uses this very code."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.align import find_part
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.placement import Placement, place_at_pose, place_region
from onspect.runtime.model.schema import Preprocess


def place(frame: Frame, preprocess: Preprocess) -> Placement | None:
    """Return where in a frame the model's input lies; None if it is the whole frame.

    With an alignment the part is searched for, which takes milliseconds. Raises ImageError if the frame is not one that
    the model was trained for, if the region does not fit into it, or if the part is not found or is cut by its edge.
    """
    check_frame(frame, preprocess)
    if preprocess.region is None:
        return None
    height, width = frame.shape[:2]
    if preprocess.align is None:
        return place_region(preprocess.region, width, height)
    pose = find_part(frame, preprocess.align, preprocess.white_level)
    return place_at_pose(preprocess.region, preprocess.align.patch, pose, (width, height))


def prepare(frame: Frame, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Turn a frame into one model input: uint8 [height, width, channels] as `preprocess` says, contiguous.

    With a region the frame is cropped first, where `place` says. A crop at a pose is resampled once (bicubic), at whole
    multiples of the model's sides.
    Colour becomes mono by OpenCV's weights (0.299 R, 0.587 G, 0.114 B), which leave grey in three channels as it is;
    mono becomes colour by repetition, where the model was trained on mono images too. Shrinking
    averages areas, by halves first; enlarging is bilinear. A uint16 value v becomes v * 255 / white_level, rounded, at
    most 255.
    Raises ImageError as `place` does.
    """
    return prepare_at(frame, preprocess, place(frame, preprocess))


def prepare_at(frame: Frame, preprocess: Preprocess, placement: Placement | None) -> NDArray[np.uint8]:
    """Turn a frame into a model input as `prepare` does, from the place that `place` returned for it."""
    if placement is not None:
        frame = placement.cut(frame, (preprocess.width, preprocess.height))
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if frame.ndim == 3 and preprocess.channels == 1:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    elif frame.ndim == 2 and preprocess.channels == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    frame = _resize(frame, preprocess.width, preprocess.height)
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=255.0 / preprocess.white_level)
    return np.ascontiguousarray(frame.reshape(preprocess.height, preprocess.width, preprocess.channels))


def _resize(frame: Frame, width: int, height: int) -> Frame:
    """Resize a frame; halves, which OpenCV does many times faster than other shares, go before what is left."""
    while _can_halve(frame.shape[1], width) and _can_halve(frame.shape[0], height):
        frame = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if (frame.shape[1], frame.shape[0]) == (width, height):
        return frame
    shrinks = frame.shape[1] >= width and frame.shape[0] >= height
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _can_halve(side: int, wanted: int) -> bool:
    """Tell whether half of an even side is 7/8 of the wanted one at least, as with 480 pixels for 256."""
    return side % 2 == 0 and side // 2 * 8 >= wanted * 7


def check_frame(frame: Frame, preprocess: Preprocess) -> None:
    """Raise ImageError where a frame's dtype, channels or size are not what `preprocess` accepts."""
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"the frame is {type(frame).__name__}, not a numpy array")
    if frame.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"the frame's dtype is {frame.dtype}; convert it to uint8 or uint16", code="size")
    if frame.ndim not in (2, 3) or frame.size == 0:
        raise ImageError(f"the frame's shape is {frame.shape}; give height x width or height x width x 3", code="size")
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    accepted = preprocess.accepted_channels
    if channels not in accepted:
        raise ImageError(
            f"the image has {channels} channel{'s' * (channels != 1)}, "
            f"the model takes images with {' or '.join(map(str, accepted))}; "
            "use the camera mode of the training images, or train on images like this one",
            code="size",
        )
    check_size(frame.shape[1], frame.shape[0], preprocess)
    if frame.dtype == np.uint16 and frame.size < 2 * np.count_nonzero(frame > preprocess.white_level):
        raise ImageError(
            f"more than half of the image is above the model's white level, {preprocess.white_level}; "
            "use the camera's bit depth of the training images, or train with another --white-level",
            code="size",
        )


def check_size(width: int, height: int, preprocess: Preprocess) -> None:
    """Raise ImageError where an image's size in pixels is not what `preprocess` accepts."""
    limits = preprocess.source
    for side, value, accepted in (("wide", width, limits.width), ("high", height, limits.height)):
        if accepted is not None and not accepted[0] <= value <= accepted[1]:
            span = f"{accepted[0]}" if accepted[0] == accepted[1] else f"{accepted[0]} to {accepted[1]}"
            raise ImageError(
                f"the image is {width}x{height} pixels, the model accepts images {span} pixels {side}; "
                "use the camera mode of the training images, or train with --any-size",
                code="size",
            )
