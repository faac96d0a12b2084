"""Outline of a part on a plain ground: the region of an alignment if none was drawn."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.images.decode import Frame
from onspect.runtime.model.schema import Polygon, Rectangle

_LONG_SIDE = 320  # pixels of the shrunk frame
_CONTRAST = 12.0  # smallest difference between part and ground in grey levels
_PLAIN = 40.0  # grey levels; a ground with a larger spread is not plain
_GAP = 0.02  # largest gap between the pieces of a part, as a share of the longer side
_MARGIN = 0.03  # margin around the part, as a share of the longer side
_LEAST_AREA = 0.03  # smallest part as a share of the frame
_OTHER = 0.3  # a piece above this share of the largest one is a second part
_FRAME_MARGIN = 0.1  # margin as a share of each side, if there is no outline


def outline_part(frame: Frame, white_level: int) -> Polygon | None:
    """Return the convex outline, with a margin, of the only part on a plain ground.

    The border of the frame shows the ground.

    Parameters
    ----------
    frame
        HxW or HxWx3, uint8 or uint16.
    white_level
        White of a uint16 frame.

    Returns
    -------
    Polygon | None
        The outline; None if the ground is not plain, or if there is no part, several parts, or one that touches the
        border.
    """
    height, width = frame.shape[:2]
    factor = max(1.0, max(height, width) / _LONG_SIDE)
    rows, columns = max(3, round(height / factor)), max(3, round(width / factor))
    small = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows, columns, -1)
    grey = small.astype(np.float32) * np.float32(255.0 / white_level if frame.dtype == np.uint16 else 1.0)
    mask = _differs_from_border(grey)
    if mask is None:
        return None
    longer = max(rows, columns)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(_GAP * longer))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < _LEAST_AREA * mask.size or (areas > _OTHER * areas.max()).sum() > 1:
        return None
    part = (labels == 1 + int(areas.argmax())).astype(np.uint8)
    if part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any():
        return None
    wide = cv2.dilate(part, _disc(_MARGIN * longer))
    contours, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.approxPolyDP(cv2.convexHull(np.concatenate(contours)), 1.0, closed=True)[:, 0].astype(np.float64)
    corners = np.rint((hull + 0.5) * (width / columns, height / rows) - 0.5).astype(int)
    return tuple((min(max(0, x), width - 1), min(max(0, y), height - 1)) for x, y in corners.tolist())


def box_without_border(frame: Frame) -> Rectangle:
    """Return a frame without a tenth on each side, by which a part may move.

    Parameters
    ----------
    frame
        The frame.

    Returns
    -------
    Rectangle
        x, y, width and height.
    """
    height, width = frame.shape[:2]
    left, top = round(_FRAME_MARGIN * width), round(_FRAME_MARGIN * height)
    return left, top, width - 2 * left, height - 2 * top


def _differs_from_border(grey: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """Return 1 where grey levels [h, w, channels] differ from their border, uint8 [h, w]; None if the border varies."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.median(border, axis=0)
    spread = float(np.quantile(np.abs(border - ground).max(axis=1), 0.9))
    if spread > _PLAIN:
        return None
    differs: NDArray[np.bool_] = np.abs(grey - ground).max(axis=2) > max(_CONTRAST, 2.0 * spread)
    return differs.astype(np.uint8)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
