"""From a frame to the uint8 input of the model; training uses the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.model.schema import Preprocess

if TYPE_CHECKING:
    from onspect.runtime.images.placement import Placement


def place(frame: Frame, preprocess: Preprocess) -> Placement | None:
    """Return the place of the model's input in a frame; an alignment searches for the part, which takes milliseconds.

    Parameters
    ----------
    frame
        HxW or HxWxC, uint8 or uint16.
    preprocess
        The model's.

    Returns
    -------
    Placement | None
        The place; None for the whole frame.

    Raises
    ------
    ImageError
        If the model was not trained for such a frame, the region does not fit into it, or the part is not found or is
        cut.
    """
    check_frame(frame, preprocess)
    if preprocess.region is None:
        return None
    from onspect.runtime.images.placement import place_at_pose, place_region  # most models have no region

    height, width = frame.shape[:2]
    if preprocess.align is None:
        return place_region(preprocess.region, width, height)
    from onspect.runtime.images.align import find_part

    pose = find_part(frame, preprocess.align, preprocess.white_level)
    return place_at_pose(preprocess.region, preprocess.align.patch, pose, (width, height))


def prepare(frame: Frame, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Convert a frame to the input of the model.

    With a region the frame is cropped first, at the place of `place`. A crop at a pose is resampled once (bicubic), at
    whole multiples of the model's sides. Colour becomes mono with the weights of OpenCV (0.299 R, 0.587 G, 0.114 B),
    which keep grey in three channels unchanged. Mono becomes colour by repetition, if the model was trained on mono
    images too. To shrink, areas are averaged, by halves first; to enlarge, the frame is interpolated (bilinear). A
    uint16 value v becomes v * 255 / white_level, rounded, at most 255. Height and width are those of the model, or with
    `keep_aspect` those of `own_size`.

    Parameters
    ----------
    frame
        HxW or HxWxC, uint8 or uint16.
    preprocess
        The model's.

    Returns
    -------
    NDArray[np.uint8]
        uint8 [height, width, channels], contiguous.

    Raises
    ------
    ImageError
        As for `place`.
    """
    return prepare_at(frame, preprocess, place(frame, preprocess))


def prepare_at(frame: Frame, preprocess: Preprocess, placement: Placement | None) -> NDArray[np.uint8]:
    """Convert a frame to the input of the model, as `prepare` does.

    Parameters
    ----------
    frame
        HxW or HxWxC, uint8 or uint16.
    preprocess
        The model's.
    placement
        The place that `place` returned for the frame.

    Returns
    -------
    NDArray[np.uint8]
        uint8 [height, width, channels], contiguous.
    """
    width, height = preprocess.width, preprocess.height
    if preprocess.keep_aspect:
        from onspect.runtime.images.working_size import own_size

        height, width = own_size(frame.shape[0], frame.shape[1], height * width)
    if placement is not None:
        frame = placement.cut(frame, (width, height))
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if frame.ndim == 3 and preprocess.channels == 1:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    elif frame.ndim == 2 and preprocess.channels == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    frame = _resize(frame, width, height)
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=255.0 / preprocess.white_level)
    return np.ascontiguousarray(frame.reshape(height, width, preprocess.channels))


def _resize(frame: Frame, width: int, height: int) -> Frame:
    """Resize a frame; it is halved first as often as possible, because OpenCV does that many times faster."""
    while _can_halve(frame.shape[1], width) and _can_halve(frame.shape[0], height):
        frame = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if (frame.shape[1], frame.shape[0]) == (width, height):
        return frame
    shrinks = frame.shape[1] >= width and frame.shape[0] >= height
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _can_halve(side: int, wanted: int) -> bool:
    """Return whether half of an even side is at least 7/8 of the wanted one, as with 480 pixels for 256."""
    return side % 2 == 0 and side // 2 * 8 >= wanted * 7


def check_frame(frame: Frame, preprocess: Preprocess) -> None:
    """Check dtype, channels and size of a frame.

    Parameters
    ----------
    frame
        The frame.
    preprocess
        The model's.

    Raises
    ------
    ImageError
        If the model does not accept the frame.
    """
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
    """Check the size of an image.

    Parameters
    ----------
    width
        Width in pixels.
    height
        Height in pixels.
    preprocess
        The model's.

    Raises
    ------
    ImageError
        If the model does not accept the size.
    """
    limits = preprocess.source
    for side, value, accepted in (("wide", width, limits.width), ("high", height, limits.height)):
        if accepted is not None and not accepted[0] <= value <= accepted[1]:
            span = f"{accepted[0]}" if accepted[0] == accepted[1] else f"{accepted[0]} to {accepted[1]}"
            raise ImageError(
                f"the image is {width}x{height} pixels, the model accepts images {span} pixels {side}; "
                "use the camera mode of the training images, or train with --any-size",
                code="size",
            )
