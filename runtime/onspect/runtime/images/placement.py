"""Place of a model's input in a frame: the crop to a region, at the pose of the part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.region import draw_region
from onspect.runtime.model.schema import Rectangle, RegionOfInterest

_GRID = 24  # points on each side that are checked to be inside the frame
_MOST_OUTSIDE = 0.01  # largest share of inspected points outside the frame: a rounding error, not a part


@dataclass(frozen=True)
class Pose:
    """Pose of a part in a frame."""

    x: float
    """Middle of the reference patch in pixels of the frame, from the left."""
    y: float
    """Middle of the reference patch in pixels of the frame, from the top."""
    angle: float
    """Rotation of the part against the reference in degrees, counter-clockwise, above -180 and up to 180."""
    scale: float = 1.0
    """Size relative to the reference."""
    confidence: float = 1.0
    """Correlation with the reference, -1 to 1."""

    @property
    def rounded(self) -> tuple[float, float, float]:
        """Middle and rotation, to a hundredth of a pixel and of a degree; the rotation stays above -180."""
        angle = round(180.0 - (180.0 - round(self.angle, 2)) % 360.0, 2)  # neither -180 nor -0
        return round(self.x, 2), round(self.y, 2), angle


@dataclass(frozen=True)
class Placement:
    """Place of a model's input in its frame."""

    width: int
    """Width of the crop in pixels of the frame."""
    height: int
    """Height of the crop in pixels of the frame."""
    matrix: tuple[float, float, float, float, float, float]
    """The two rows of the matrix from a point (x, y, 1) of the crop to a point of the frame."""
    frame: tuple[int, int]
    """Width and height of the frame."""
    pose: Pose | None = None
    """Pose of the part; None without an alignment."""

    @property
    def rows(self) -> NDArray[np.float64]:
        """The matrix, float64 [2, 3]."""
        return np.array(self.matrix, np.float64).reshape(2, 3)

    @property
    def is_upright(self) -> bool:
        """Whether the crop is a plain rectangle of the frame."""
        return self.pose is None

    def cut(self, frame: Frame, size: tuple[int, int] | None = None) -> Frame:
        """Return the crop of a frame: a view of its pixels if it is upright, else a copy that is resampled once.

        A copy has whole multiples of `size`, about as many pixels as the frame has there or more, so that a mean over
        areas shrinks it to `size`.

        Parameters
        ----------
        frame
            The frame.
        size
            Width and height that are wanted in the end; None for those in the frame.

        Returns
        -------
        Frame
            The crop, with the dtype and the channels of the frame.
        """
        if self.is_upright:
            left, top = int(self.matrix[2]), int(self.matrix[5])
            return frame[top : top + self.height, left : left + self.width]
        sides = self.width, self.height
        width, height = (
            wanted * max(1, math.ceil(side / wanted - 0.125)) for side, wanted in zip(sides, size or sides, strict=True)
        )
        finer = self.rows @ np.diag([self.width / width, self.height / height, 1.0])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP  # bilinear would blur fine defects
        return cv2.warpAffine(frame, _centred(finer), (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def box_in_frame(self, x: int, y: int, width: int, height: int) -> Rectangle:
        """Return the bounding box in the frame of a box of the crop, cut at the edges of the frame.

        Parameters
        ----------
        x
            Left edge in the crop.
        y
            Top edge in the crop.
        width
            Width in pixels of the crop.
        height
            Height in pixels of the crop.

        Returns
        -------
        Rectangle
            x, y, width and height in the frame.
        """
        corners = [(x, y), (x + width, y), (x, y + height), (x + width, y + height)]
        points = self.points_in_frame(np.array(corners, np.float64))
        (left, top), (right, bottom) = np.floor(points.min(axis=0) + 1e-6), np.ceil(points.max(axis=0) - 1e-6)
        across, down = self.frame
        left, top = min(max(0, int(left)), across - 1), min(max(0, int(top)), down - 1)
        return left, top, max(1, min(across, int(right)) - left), max(1, min(down, int(bottom)) - top)

    def points_in_frame(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert points of the crop to points of the frame.

        Parameters
        ----------
        points
            float64 [n, 2].

        Returns
        -------
        NDArray[np.float64]
            float64 [n, 2].
        """
        rows = self.rows
        return np.asarray(points @ rows[:, :2].T + rows[:, 2])

    @property
    def area_factor(self) -> float:
        """Area of one pixel of the crop, in pixels of the frame."""
        rows = self.rows
        return float(abs(np.linalg.det(rows[:, :2])))

    def map_in_frame(self, plane: NDArray[Any], size: tuple[int, int] | None = None) -> NDArray[Any]:
        """Convert a map of the crop to a map of the whole frame, with 0 outside the crop.

        Parameters
        ----------
        plane
            [h, w], at any size.
        size
            Width and height of the result; None for those of the frame.

        Returns
        -------
        NDArray[Any]
            [height, width], with the dtype of `plane`.
        """
        across, down = self.frame
        width, height = size or self.frame
        rows, columns = plane.shape[:2]
        crop = np.diag([self.width / columns, self.height / rows, 1.0])
        view = np.diag([width / across, height / down, 1.0])
        whole = view @ np.vstack([self.rows, (0.0, 0.0, 1.0)]) @ crop
        flags = cv2.INTER_LINEAR
        return cv2.warpAffine(plane, _centred(whole[:2]), (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT)

    def outline(self) -> NDArray[np.float64]:
        """Return the four corners of the crop in the frame.

        Returns
        -------
        NDArray[np.float64]
            float64 [4, 2], in order around the crop.
        """
        w, h = self.width, self.height
        return self.points_in_frame(np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float64))


def place_region(region: RegionOfInterest, width: int, height: int) -> Placement:
    """Return the place of a region if parts are always in the same place.

    Parameters
    ----------
    region
        The region.
    width
        Width of the frame in pixels.
    height
        Height of the frame in pixels.

    Returns
    -------
    Placement
        The place.

    Raises
    ------
    ImageError
        If the region does not fit into the frame.
    """
    x, y, wide, high = region.box
    if x + wide > width or y + high > height:
        raise ImageError(
            f"the region of {wide}x{high} pixels at {x},{y} does not fit into the frame of {width}x{height} pixels; "
            f"it was drawn on {region.frame[0]}x{region.frame[1]}: use that camera mode, or teach with another --roi",
            code="size",
        )
    return Placement(wide, high, (1.0, 0.0, float(x), 0.0, 1.0, float(y)), (width, height))


def place_at_pose(region: RegionOfInterest, patch: Rectangle, pose: Pose, frame: tuple[int, int]) -> Placement:
    """Return the place of a region in a frame in which the reference patch was found.

    Parameters
    ----------
    region
        The region.
    patch
        x, y, width and height of the reference in its picture.
    pose
        Pose of the part.
    frame
        Width and height of the frame.

    Returns
    -------
    Placement
        The place.

    Raises
    ------
    ImageError
        If more than 1% of the inspected points are outside the frame.
    """
    x, y, wide, high = region.box
    angle = np.deg2rad(pose.angle)
    cos, sin = pose.scale * np.cos(angle), pose.scale * np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])  # y points down, so this rotates counter-clockwise
    middle = np.array([patch[0] + patch[2] / 2.0 - x, patch[1] + patch[3] / 2.0 - y])
    shift = np.array([pose.x, pose.y]) - turn @ middle
    cos, sin = float(cos), float(sin)
    matrix = (cos, sin, float(shift[0]), -sin, cos, float(shift[1]))
    placement = Placement(wide, high, matrix, frame, pose)
    points = placement.points_in_frame(_inspected_grid(region))
    outside = float(np.mean(((points < 0.0) | (points > frame)).any(axis=1)))
    if outside > _MOST_OUTSIDE:
        raise ImageError(
            f"the part is cut by the edge of the frame: {outside:.0%} of its region is outside "
            f"(found at {pose.x:.0f},{pose.y:.0f}, turned by {round(pose.angle)} degrees)",
            code="position",
        )
    return placement


@lru_cache(maxsize=16)
def _inspected_grid(region: RegionOfInterest) -> NDArray[np.float64]:
    """Return points spread over the inspected places of a region, float64 [n, 2], in pixels of the crop."""
    inspected = draw_region(region)
    height, width = inspected.shape
    down, across = np.linspace(0, height, _GRID), np.linspace(0, width, _GRID)
    points = np.array([(x, y) for y in down for x in across])
    columns, rows = (np.minimum(points[:, axis].astype(int), side - 1) for axis, side in ((0, width), (1, height)))
    inside = points[inspected[rows, columns] > 0]
    return inside if len(inside) else points  # very small shapes may contain no point


def matrix_at_pose(pose: Pose, shape: tuple[int, ...], factor: int) -> NDArray[np.float64]:
    """Return the matrix from a pixel of the reference to a pixel of the frame, both shrunk.

    Pixels are numbered from the middle of the first one, as OpenCV does.

    Parameters
    ----------
    pose
        The pose, in pixels of the plane before it is shrunk.
    shape
        Height and width of the reference, shrunk by `factor`.
    factor
        Shrink factor, 1 or more.

    Returns
    -------
    NDArray[np.float64]
        float64 [2, 3].
    """
    angle = math.radians(pose.angle)
    cos, sin = pose.scale * math.cos(angle), pose.scale * math.sin(angle)
    x, y = (shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0
    shift = (pose.x / factor - 0.5 - cos * x - sin * y, pose.y / factor - 0.5 + sin * x - cos * y)
    return np.array([[cos, sin, shift[0]], [-sin, cos, shift[1]]])


def _centred(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert a matrix of points to one of pixel numbers, which count from the middle of the first pixel."""
    between = matrix.copy()
    between[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return between
