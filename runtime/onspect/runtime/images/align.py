"""Alignment: find the reference in each frame, with shift, rotation and (if wanted) scale, before the crop.

The search goes from coarse to fine on the local contrast, which is the frame minus a smoothed copy. The best few poses
of the coarse search are refined by Gauss-Newton steps (inverse compositional), first at a quarter of the pixels. The
confidence is the normalised correlation at the final pose.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from onspect.runtime.errors import ImageError
from onspect.runtime.images.coarse_search import ANGLE_STEP, CoarseSearch, Plane, shrink, spread_angles, spread_scales
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.placement import Pose, matrix_at_pose
from onspect.runtime.model.schema import Alignment, Rectangle

_LONGEST = 160  # side of the stored reference, in pixels
_REFINED = 3  # poses of the coarse search that are refined
_CLOSE = 0.1  # difference of correlation up to which a pose is compared at the finest level
_APART = 0.7  # smallest distance of two parts, as a share of the reference's shorter side
_STEPS = {2: 6, 1: 4}  # Gauss-Newton steps at each level; the number is how many times smaller it is
_LEAST_LEVEL = 12  # pixels of the shorter side of a level
_AROUND = 4  # largest error of a coarse pose in pixels of the smallest level
_SETTLED = 0.02  # a step of fewer pixels ends the search
_LEAST_LENGTH = 1e-3  # of the contrast under the reference, in grey levels: less is a rounding error
_SLACK = 2.0  # degrees and percent by which a pose may exceed its limits


def find_part(frame: Frame, alignment: Alignment, white_level: int) -> Pose:
    """Find the reference in a frame.

    Parameters
    ----------
    frame
        HxW or HxWx3 (BGR), uint8 or uint16.
    alignment
        The reference, the largest rotation and change of size, and the smallest confidence.
    white_level
        White of a uint16 frame, as in `Preprocess`.

    Returns
    -------
    Pose
        The pose of the part.

    Raises
    ------
    ImageError
        If no place correlates as well as the good parts did (``part not found``), or if two places do (``two parts are
        in view``).
    """
    pose, other = _open_finder(alignment).find_two(local_contrast(frame, alignment.patch, white_level))
    if pose.confidence < alignment.confidence:
        raise ImageError(
            f"part not found: the best place, {pose.x:.0f},{pose.y:.0f}, correlates {pose.confidence:.2f} with the "
            f"reference, and {alignment.confidence:.2f} is needed",
            code="position",
        )
    if other is not None and other.confidence >= alignment.confidence:
        raise ImageError(
            f"two parts are in view: at {pose.x:.0f},{pose.y:.0f} and {other.x:.0f},{other.y:.0f} (correlations "
            f"{pose.confidence:.2f} and {other.confidence:.2f}); one would not be judged",
            code="position",
        )
    return pose


def local_contrast(frame: Frame, patch: Rectangle, white_level: int) -> Plane:
    """Return the local contrast of a frame at the scale of the stored reference.

    Parameters
    ----------
    frame
        HxW or HxWx3 (BGR), uint8 or uint16.
    patch
        x, y, width and height of the reference in its frame.
    white_level
        White of a uint16 frame.

    Returns
    -------
    Plane
        float32 [h, w] in grey levels.

    Raises
    ------
    ImageError
        If the frame is smaller than half of the patch.
    """
    return remove_smooth(shrink_to_grey(frame, patch, white_level), patch)


def shrink_to_grey(frame: Frame, patch: Rectangle, white_level: int) -> Plane:
    """Return a frame in grey at the scale of the stored reference.

    Parameters
    ----------
    frame
        HxW or HxWx3 (BGR), uint8 or uint16.
    patch
        x, y, width and height of the reference in its frame.
    white_level
        White of a uint16 frame.

    Returns
    -------
    Plane
        float32 [h, w] in grey levels of 0 to 255.

    Raises
    ------
    ImageError
        If the frame is smaller than half of the patch.
    """
    factor = shrink_factor(patch)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    if 2 * min(frame.shape[:2]) < min(patch[2:]):
        raise ImageError(
            f"the frame of {frame.shape[1]}x{frame.shape[0]} pixels is smaller than half of the reference patch of "
            f"{patch[2]}x{patch[3]}; use the camera mode of the training images",
            code="size",
        )
    if factor > 1:
        frame = frame[: height * factor, : width * factor]
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    if frame.ndim == 3:
        frame = frame[:, :, 0] if frame.shape[2] == 1 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=255.0 / white_level)
    return np.asarray(frame, np.float32)


def remove_smooth(grey: Plane, patch: Rectangle) -> Plane:
    """Subtract a smoothed copy, over a sixth of the patch's longer side.

    Parameters
    ----------
    grey
        float32 [h, w] in grey levels.
    patch
        x, y, width and height of the reference in its frame.

    Returns
    -------
    Plane
        float32 [h, w] in grey levels.
    """
    side = max(3, max(patch[2:]) // shrink_factor(patch) // 12 * 2 + 1)  # two box filters are nearly round
    smooth = cv2.blur(cv2.blur(grey, (side, side)), (side, side))
    return np.asarray(cv2.subtract(grey, smooth), np.float32)


def shrink_factor(patch: Rectangle) -> int:
    """Return the factor by which frames are shrunk before the search, so that the patch has at most 160 pixels a side.

    Parameters
    ----------
    patch
        x, y, width and height of the reference in its frame.

    Returns
    -------
    int
        1 or more.
    """
    return -(-max(patch[2:]) // _LONGEST)


@dataclass(frozen=True)
class _Level:
    """The reference at one size: its values (mean 0, length 1), and the data of a Gauss-Newton step.

    factor: how many times smaller than the stored reference. products: float32 [1 + k, h * w], the values and the
    pseudo-inverse of the derivatives by shift (x, y), rotation and scale; the latter are blind to brightness and
    contrast. radius: in pixels, for the length of a rotation.
    """

    factor: int
    values: Plane
    products: Plane
    radius: float


class Finder:
    """Find a reference in the local contrast of frames; may be used from several threads.

    Parameters
    ----------
    patch
        x, y, width and height of the reference in its frame.
    reference
        Its local contrast, float32 [h, w], as `local_contrast` returns it.
    turn
        Largest rotation in degrees, 0 to 180.
    scale
        Largest change of size as a share.
    """

    def __init__(self, patch: Rectangle, reference: Plane, *, turn: float, scale: float) -> None:
        self.reference = reference
        self._patch = patch
        self._shrink = shrink_factor(patch)
        self._turn, self._scale = turn, scale
        sides = reference.shape[1], reference.shape[0]
        self._levels = [
            _make_level(reference, factor, scale > 0.0)
            for factor in _STEPS
            if factor == 1 or min(sides) // factor >= _LEAST_LEVEL
        ]
        self._angles = spread_angles(turn)
        self._scales = spread_scales(scale)
        self._searches = lru_cache(maxsize=4)(self._open_search)

    def find(self, contrast: Plane) -> Pose:
        """Return the pose with the highest correlation.

        Parameters
        ----------
        contrast
            float32 [h, w], as `local_contrast` returns it.

        Returns
        -------
        Pose
            The pose, in pixels of the frame.
        """
        return self._find(contrast)[0]

    def find_two(self, contrast: Plane) -> tuple[Pose, Pose | None]:
        """Return the pose with the highest correlation, and the best pose of another place.

        Parameters
        ----------
        contrast
            float32 [h, w], as `local_contrast` returns it.

        Returns
        -------
        tuple[Pose, Pose | None]
            Both poses; None for the second if no other place resembles a part.
        """
        best, search, likeness, levels = self._find(contrast)
        own = dataclasses.replace(best, x=best.x / self._shrink, y=best.y / self._shrink)
        coarse = search.find_other(likeness, own, _APART * min(self.reference.shape))
        if coarse is None:
            return best, None
        return best, self._refine_all([coarse], levels)

    def _find(self, contrast: Plane) -> tuple[Pose, CoarseSearch, Plane, list[tuple[_Level, Plane]]]:
        height, width = contrast.shape
        search = self._searches(width, height)
        levels = [(level, shrink(contrast, level.factor)) for level in self._levels]
        found, likeness = search.find(contrast)
        return self._refine_all(found, levels), search, likeness, levels

    def _refine_all(self, found: list[Pose], levels: list[tuple[_Level, Plane]]) -> Pose:
        """Return the best of the coarse poses after the fine search, in pixels of the frame."""
        (level, plane), *finer = levels
        near = [self._search_around(level, plane, pose) for pose in found]
        near.sort(key=lambda pose: -pose.confidence)
        refined = [self._refine(level, plane, pose) for pose in near[:_REFINED]]
        highest = max(pose.confidence for pose in refined)
        close = [pose for pose in refined if pose.confidence > highest - _CLOSE]  # such as half a turn apart
        for level, plane in finer:
            close = [self._refine(level, plane, pose) for pose in close]
        best = max(close, key=lambda pose: pose.confidence)
        if abs(best.angle) > self._turn + _SLACK or abs(best.scale - 1.0) > self._scale + _SLACK / 100.0:
            best = dataclasses.replace(best, confidence=0.0)
        return dataclasses.replace(best, x=best.x * self._shrink, y=best.y * self._shrink)

    def cut(self, contrast: Plane, pose: Pose) -> Plane:
        """Return the contrast under the reference at a pose, turned back.

        Parameters
        ----------
        contrast
            float32 [h, w], as `local_contrast` returns it.
        pose
            The pose.

        Returns
        -------
        Plane
            float32 with the shape of the reference.
        """
        own = dataclasses.replace(pose, x=pose.x / self._shrink, y=pose.y / self._shrink)
        return sample(contrast, own, self.reference.shape, 1)

    def paint_over(self, grey: Plane, pose: Pose) -> Plane:
        """Replace the part at a pose, with a margin of a tenth, by the median of the rest.

        Parameters
        ----------
        grey
            float32 [h, w] in grey levels.
        pose
            The pose.

        Returns
        -------
        Plane
            float32 [h, w].
        """
        height, width = self.reference.shape
        own = dataclasses.replace(pose, x=pose.x / self._shrink, y=pose.y / self._shrink, scale=pose.scale * 1.1)
        matrix = matrix_at_pose(own, self.reference.shape, 1)
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
        part = np.zeros(grey.shape, np.uint8)
        cv2.fillConvexPoly(part, np.rint(corners @ matrix[:, :2].T + matrix[:, 2]).astype(np.int32), (1,))
        rest = grey[part == 0]
        return np.where(part, np.median(rest) if rest.size else grey.mean(), grey).astype(np.float32)

    def _search_around(self, level: _Level, plane: Plane, pose: Pose) -> Pose:
        """Return the best pose within a third of an angle step and a few pixels."""
        height, width = level.values.shape
        shape = height + 2 * _AROUND, width + 2 * _AROUND
        best = Pose(pose.x, pose.y, pose.angle, pose.scale, -1.0)
        for turn in (-ANGLE_STEP / 3.0, 0.0, ANGLE_STEP / 3.0):
            turned = Pose(pose.x, pose.y, pose.angle + turn, pose.scale)
            wide = sample(plane, turned, shape, level.factor)
            likeness = cv2.matchTemplate(wide, level.values, cv2.TM_CCOEFF_NORMED)
            _, highest, _, (column, row) = cv2.minMaxLoc(likeness)
            if np.isfinite(highest) and highest > best.confidence:
                x, y = _move(turned, column - _AROUND, row - _AROUND, level.factor)
                best = Pose(x, y, turned.angle, turned.scale, float(highest))
        return best

    def _refine(self, level: _Level, plane: Plane, pose: Pose) -> Pose:
        """Take Gauss-Newton steps from a pose; return the best pose, with its correlation as the confidence."""
        best, highest = pose, -1.0
        for number in range(_STEPS[level.factor] + 1):
            seen = sample(plane, pose, level.values.shape, level.factor)
            product, *steps = (level.products @ seen.ravel()).tolist()
            length = float(cv2.meanStdDev(seen)[1][0, 0]) * math.sqrt(seen.size)
            likeness = product / max(length, _LEAST_LENGTH)
            if likeness <= highest:
                break  # the last pose was better
            best, highest = pose, likeness
            if likeness <= 0.0 or number == _STEPS[level.factor]:
                break
            step = [value / product for value in steps]
            pose = _step_back(pose, step, level.factor)
            if abs(step[0]) + abs(step[1]) + abs(step[2]) * level.radius < _SETTLED:
                break
        return Pose(best.x, best.y, best.angle, best.scale, highest)

    def _open_search(self, width: int, height: int) -> CoarseSearch:
        return CoarseSearch(self.reference, (width, height), self._angles, self._scales)


@lru_cache(maxsize=16)
def _open_finder(alignment: Alignment) -> Finder:
    return Finder(alignment.patch, _decode(alignment.reference), turn=alignment.turn, scale=alignment.scale)


def _decode(text: str) -> Plane:
    """Return the reference from the text of a PNG; raise ImageError if it is damaged."""
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    except (ValueError, cv2.error) as error:
        raise ImageError(
            f"the model's reference picture is damaged ({error}); teach the model again", code="model"
        ) from error
    if picture is None:
        raise ImageError("the model's reference picture is damaged; teach the model again", code="model")
    return np.asarray(picture, np.float32) - np.float32(128.0)


def _make_level(reference: Plane, factor: int, scales: bool) -> _Level:
    small = shrink(reference, factor)
    height, width = small.shape
    values = _normalise(small)
    smooth = cv2.GaussianBlur(values, (0, 0), 0.7)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2.0)[None]
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2.0)[:, None]
    slopes = [across, down, across * y - down * x] + [across * x + down * y] * scales
    rows = np.stack([slope.ravel() for slope in slopes]).astype(np.float64)
    flat = values.ravel().astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)  # brightness and contrast may vary
    rows -= np.outer(rows @ flat, flat)
    products = np.vstack([flat, np.linalg.pinv(rows.T)]).astype(np.float32)
    return _Level(factor, values, products, float(np.hypot(width, height) / 2.0))


def _normalise(plane: Plane) -> Plane:
    """Return values with mean 0 and length 1; values without contrast become 0."""
    centred = plane - plane.mean()
    length = float(np.linalg.norm(centred))
    return np.asarray(centred / np.float32(max(length, 1e-6)), np.float32)


def sample(plane: Plane, pose: Pose, shape: tuple[int, ...], factor: int) -> Plane:
    """Return the part of a plane under the reference at a pose.

    Parameters
    ----------
    plane
        float32 [h, w], shrunk by `factor`.
    pose
        The pose, in pixels of the plane before it is shrunk.
    shape
        Height and width of the reference, shrunk by `factor`.
    factor
        Shrink factor, 1 or more.

    Returns
    -------
    Plane
        float32 [shape].
    """
    matrix = matrix_at_pose(pose, shape, factor)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (shape[1], shape[0])
    return np.asarray(cv2.warpAffine(plane, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _step_back(pose: Pose, step: Sequence[float], factor: int) -> Pose:
    """Return a pose after the inverse of a small step (x, y, rotation in radians, scale) of the reference."""
    turned = pose.angle - math.degrees(step[2])
    scale = pose.scale / (1.0 + step[3]) if len(step) > 3 else pose.scale
    own = Pose(pose.x, pose.y, 180.0 - (180.0 - turned) % 360.0, scale)
    x, y = _move(own, -step[0], -step[1], factor)
    return Pose(x, y, own.angle, own.scale)


def _move(pose: Pose, across: float, down: float, factor: int) -> tuple[float, float]:
    """Return the place of a pose after a move along the part's own axes, by pixels of a level."""
    angle = math.radians(pose.angle)
    cos, sin = pose.scale * factor * math.cos(angle), pose.scale * factor * math.sin(angle)
    return pose.x + cos * across + sin * down, pose.y + cos * down - sin * across
