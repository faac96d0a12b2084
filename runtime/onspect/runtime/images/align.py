"""Alignment: a reference is found in each frame, with shift, rotation and (if asked) scale, before the crop.

The search goes from coarse to fine on the local contrast, which is the frame less its own smoothed copy. At about 80
pixels a side, the reference at every tenth degree is correlated with the whole frame, by Fourier transforms; places
outside the turned reference do not count. The best few poses are refined by Gauss-Newton steps (inverse compositional),
first at a quarter of the pixels. The normalised correlation at the final pose is the confidence.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.placement import Pose, centred, matrix_at_pose
from onspect.runtime.model.schema import Alignment, Rectangle

Plane = NDArray[np.float32]

SMALLEST_PATCH = 16
"""Least side of a reference patch, in pixels of the frame."""

_LONGEST = 160  # side of the stored reference, in pixels
_COARSE_FRAME, _COARSE_PATCH = 80, 14  # sides of the coarse search, of which both are kept at least
_STEP = 10.0  # degrees between the turned references of the coarse search
_BLUR = 1.0  # pixels of the coarse search, about what half an angle's step moves the reference's ends by
_SHARING = 3  # of them that share one mask
_SCALE_STEP = 0.06
_CANDIDATES = 4
_REFINED = 3  # poses of the coarse search that are refined
_WORSE = 0.15  # of correlation by which a candidate may be worse than the best one
_CLOSE = 0.1  # of correlation, by which a refined pose may be worse and is still compared at the finest level
_NEARLY = 0.7  # of the coarse search's highest peak, below which no other peak is a part
_APART = 0.7  # of the reference's shorter side, the least distance of two parts
_STEPS = {2: 6, 1: 4}  # Gauss-Newton steps at each level; the number is how many times smaller it is
_LEAST_LEVEL = 12  # pixels of the shorter side of a level
_AROUND = 4  # pixels of the smallest level by which a coarse pose may be off
_SETTLED = 0.02  # pixels
_FLAT = 0.1  # of the frame's highest contrast, below which a place counts as flat
_SLACK = 2.0  # degrees and percent that a pose may exceed its limits by
_PICTURES = 32  # on which reference and confidence are chosen
_LEAST_GAIN = 0.1  # between the correlation of good parts and of places without one
_PLAUSIBLE = 0.25  # correlation from which on a picture's part joins the median
_ROUNDS = 2  # in which the median is made; the second finds the parts by the first one's median


def find_part(frame: Frame, alignment: Alignment, white_level: int) -> Pose:
    """Find the reference in a frame.

    Parameters
    ----------
    frame
        HxW or HxWx3 (BGR), uint8 or uint16.
    alignment
        The reference, the largest rotation and change of size, and the least confidence.
    white_level
        Of a uint16 frame, as in `Preprocess`.

    Raises
    ------
    ImageError
        If no place correlates as well as the good parts did: ``part not found``. If two places do: ``two parts are
        in view``.
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


def fit_alignment(
    frames: Sequence[Callable[[], Frame]],
    patch: Rectangle,
    *,
    picture: Frame,
    turn: float,
    scale: float,
    white_level: int,
) -> Alignment:
    """Make the reference and choose the least confidence from good pictures.

    The reference is the median of the good parts, in the pose that the part has in `picture`. Each of the pictures is
    then searched with a reference that was made without it: once as it is and once with the part painted over. The
    least confidence is halfway between the 5% quantile of the first correlations and the 95% quantile of the second,
    of which each is that of another place of the same picture if that is higher.

    Parameters
    ----------
    frames
        Good pictures, each read when it is called; at most 32, evenly spread, are used.
    patch
        The place of the reference in `picture`, in pixels.
    picture
        The picture on which region and patch were drawn.
    turn, scale
        The largest rotation in degrees, and the largest change of size as a share.
    white_level
        Of uint16 pictures.

    Raises
    ------
    DatasetError
        If the patch is smaller than 16 pixels or has no contrast, or if good parts correlate hardly better with the
        reference than other places.
    """
    _check_patch(patch, picture)
    chosen = frames[:: -(-len(frames) // _PICTURES)]
    planes = [_shrink_to_grey(read(), patch, white_level) for read in chosen]
    contrasts = [_remove_smooth(plane, patch) for plane in planes]
    first = reference = _cut_patch(local_contrast(picture, patch, white_level), patch)
    for _ in range(_ROUNDS):
        finder = Finder(patch, reference, turn=turn, scale=scale)
        seen = [finder.find(contrast) for contrast in contrasts]
        patches = np.stack([finder.cut(contrast, pose) for contrast, pose in zip(contrasts, seen, strict=True)])
        alike = np.array([pose.confidence >= _PLAUSIBLE for pose in seen])
        reference = _median(patches[alike]) if alike.any() else first
    found, absent = [], []
    for number, (plane, contrast) in enumerate(zip(planes, contrasts, strict=True)):
        others = alike & (np.arange(len(alike)) != number)
        own = _median(patches[others]) if others.any() else first
        finder = Finder(patch, own, turn=turn, scale=scale)
        pose, other = finder.find_two(contrast)
        found.append(pose.confidence)
        empty = finder.find(_remove_smooth(finder.paint_over(plane, pose), patch)).confidence
        absent.append(empty if other is None else max(empty, other.confidence))
    low, high = float(np.quantile(found, 0.05)), float(np.quantile(absent, 0.95))
    if low - high < _LEAST_GAIN:
        raise DatasetError(
            f"the part cannot be found by this reference: good parts correlate {max(low, 0.0):.2f} with it, "
            f"and other places {max(high, 0.0):.2f}; give a patch with more structure that is there once, or good "
            "pictures that show the same part"
        )
    cut = min(0.98, max(0.05, (low + max(high, 0.0)) / 2.0))
    return Alignment(patch, _encode(reference), float(turn), float(scale), round(cut, 4), len(chosen))


def local_contrast(frame: Frame, patch: Rectangle, white_level: int) -> Plane:
    """Return a frame's local contrast at the scale of the stored reference, float32 [h, w] in grey levels."""
    return _remove_smooth(_shrink_to_grey(frame, patch, white_level), patch)


def _shrink_to_grey(frame: Frame, patch: Rectangle, white_level: int) -> Plane:
    """Return a frame in grey levels of 0 to 255 at the scale of the stored reference, float32 [h, w]."""
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


def _remove_smooth(grey: Plane, patch: Rectangle) -> Plane:
    """Return grey levels less their own smoothed copy, over a sixth of the patch's longer side."""
    side = max(3, max(patch[2:]) // shrink_factor(patch) // 12 * 2 + 1)  # twice a box is nearly round
    smooth = cv2.blur(cv2.blur(grey, (side, side)), (side, side))
    return np.asarray(cv2.subtract(grey, smooth), np.float32)


def shrink_factor(patch: Rectangle) -> int:
    """Return by how many times frames are shrunk before the search, so that the patch has at most 160 pixels a side."""
    return -(-max(patch[2:]) // _LONGEST)


@dataclass(frozen=True)
class _Level:
    """The reference at one size: its values (mean 0, length 1), and what a Gauss-Newton step needs.

    factor: how many times smaller than the stored reference. steps: float32 [k, h * w], the pseudo-inverse of the
    derivatives by shift (x, y), rotation and scale. radius: in pixels, for the length of a rotation.
    """

    factor: int
    values: Plane
    steps: Plane
    radius: float


class Finder:
    """Finds a reference in the local contrast of frames; safe to share between threads.

    patch: the reference's place in its frame, in pixels. reference: float32 [h, w], its local contrast as
    `local_contrast` gives it. turn, scale: the largest rotation in degrees and change of size, a share.
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
        self._angles = _spread_angles(turn)
        self._scales = _spread_scales(scale)
        self._searches = lru_cache(maxsize=4)(self._open_search)

    def find(self, contrast: Plane) -> Pose:
        """Return the pose that correlates best; `local_contrast` gave the contrast."""
        return self._find(contrast)[0]

    def find_two(self, contrast: Plane) -> tuple[Pose, Pose | None]:
        """Return the pose that correlates best, and the best one of another place, None if none is like a part."""
        best, search, likeness, levels = self._find(contrast)
        own = dataclasses.replace(best, x=best.x / self._shrink, y=best.y / self._shrink)
        coarse = search.find_other(likeness, own, _APART * min(self.reference.shape))
        if coarse is None:
            return best, None
        return best, self._refine_all([coarse], levels)

    def _find(self, contrast: Plane) -> tuple[Pose, _Search, Plane, list[tuple[_Level, Plane]]]:
        height, width = contrast.shape
        search = self._searches(width, height)
        levels = [(level, _shrink(contrast, level.factor)) for level in self._levels]
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
        """Return the contrast under the reference at a pose, turned back, float32 like the reference."""
        own = dataclasses.replace(pose, x=pose.x / self._shrink, y=pose.y / self._shrink)
        return _sample(contrast, own, self.reference.shape, 1)

    def paint_over(self, grey: Plane, pose: Pose) -> Plane:
        """Return grey levels without the part at a pose: there, with a margin of a tenth, is the median of the rest."""
        height, width = self.reference.shape
        own = dataclasses.replace(pose, x=pose.x / self._shrink, y=pose.y / self._shrink, scale=pose.scale * 1.1)
        matrix = matrix_at_pose(own, self.reference.shape, 1)
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64) @ matrix[:, :2].T
        part = np.zeros(grey.shape, np.uint8)
        cv2.fillConvexPoly(part, np.rint(corners + matrix[:, 2]).astype(np.int32), (1,))
        rest = grey[part == 0]
        return np.where(part, np.median(rest) if rest.size else grey.mean(), grey).astype(np.float32)

    def _search_around(self, level: _Level, plane: Plane, pose: Pose) -> Pose:
        """Return the best of the poses a third of an angle's step and a few pixels around one."""
        height, width = level.values.shape
        shape = height + 2 * _AROUND, width + 2 * _AROUND
        best = dataclasses.replace(pose, confidence=-1.0)
        for turn in (-_STEP / 3.0, 0.0, _STEP / 3.0):
            turned = dataclasses.replace(pose, angle=pose.angle + turn)
            wide = _sample(plane, turned, shape, level.factor)
            likeness = cv2.matchTemplate(wide, level.values, cv2.TM_CCOEFF_NORMED)
            _, highest, _, (column, row) = cv2.minMaxLoc(likeness)
            if np.isfinite(highest) and highest > best.confidence:
                moved = _move(turned, column - _AROUND, row - _AROUND, level.factor)
                best = dataclasses.replace(moved, confidence=float(highest))
        return best

    def _refine(self, level: _Level, plane: Plane, pose: Pose) -> Pose:
        """Take Gauss-Newton steps from a pose; return the best one, with its correlation as the confidence."""
        best = dataclasses.replace(pose, confidence=-1.0)
        for number in range(_STEPS[level.factor] + 1):
            sample = _normalise(_sample(plane, pose, level.values.shape, level.factor))
            likeness = float(np.vdot(sample, level.values))
            if likeness <= best.confidence:
                break  # it was better before
            best = dataclasses.replace(pose, confidence=likeness)
            if likeness <= 0.0 or number == _STEPS[level.factor]:
                break
            step = level.steps @ (sample / np.float32(likeness) - level.values).ravel()
            pose = _step_back(pose, step, level.factor)
            if abs(step[0]) + abs(step[1]) + abs(step[2]) * level.radius < _SETTLED:
                break
        return best

    def _open_search(self, width: int, height: int) -> _Search:
        return _Search(self.reference, (width, height), self._angles, self._scales)


class _Search:
    """The coarse search in frames of one size: the spectra of the turned references, and where a peak may be."""

    def __init__(
        self, reference: Plane, size: tuple[int, int], angles: NDArray[np.float64], scales: NDArray[np.float64]
    ) -> None:
        shorter = min(reference.shape)
        self._factor = max(1, min(shorter // _COARSE_PATCH, max(size) // _COARSE_FRAME))
        self._poses = [(angle, scale) for scale in scales for angle in angles]
        self._across = len(angles)
        small = _blur(_shrink(reference, self._factor))
        self._canvas = int(np.ceil(np.hypot(*small.shape) * scales.max())) + 2
        self._size = size[0] // self._factor, size[1] // self._factor
        margin = 0.35 * min(small.shape)  # of the reference's middle from the frame's edge
        pad = int(np.ceil(max(0.0, self._canvas / 2.0 - margin)))
        self._shape = tuple(cv2.getOptimalDFTSize(side + pad) for side in self._size[::-1])
        templates = np.stack([self._turn(small, *pose)[0] for pose in self._poses])
        self._templates = np.conj(_spectra(templates, self._shape))
        self._owner, masks = self._share_masks(small)
        self._masks = np.conj(_spectra(masks, self._shape))
        self._counts = masks.sum(axis=(1, 2), dtype=np.float32)[:, None, None]
        self._allowed = self._find_allowed(margin)

    def find(self, contrast: Plane) -> tuple[list[Pose], Plane]:
        """Return the best poses, the best first, in pixels of the contrast's plane; and the likeness of all places.

        The likeness is float32 [poses, h * w], for `find_other`.
        """
        plane = _blur(_shrink(contrast, self._factor)[: self._size[1], : self._size[0]])
        spectra = _spectra(np.stack([plane, plane * plane]), self._shape)
        sums = np.fft.irfft2(spectra[:, None] * self._masks, self._shape)
        energy = sums[1] - sums[0] * sums[0] / self._counts
        floor = np.float32(max(_FLAT * float(energy.max()), 1e-3))
        length = 1.0 / np.sqrt(np.maximum(energy, floor))
        length *= self._allowed
        likeness = np.fft.irfft2(spectra[0] * self._templates, self._shape)
        flat = likeness.reshape(len(likeness), -1)
        weights = length.reshape(len(length), -1)
        peaks = np.empty(len(flat), np.float32)
        places = np.empty(len(flat), np.intp)
        for number, owner in enumerate(self._owner):
            np.multiply(flat[number], weights[owner], out=flat[number])
            places[number] = flat[number].argmax()
            peaks[number] = flat[number, places[number]]
        return [self._describe(number, int(places[number])) for number in self._choose(peaks)], flat

    def find_other(self, likeness: Plane, pose: Pose, radius: float) -> Pose | None:
        """Return the best pose at a distance of at least radius from one; None if no place there is nearly as good."""
        best = likeness.max(axis=0)
        highest = float(best.max())
        rows, columns = (np.arange(side, dtype=np.float32) for side in self._shape)
        rows[self._size[1] :] -= self._shape[0]
        columns[self._size[0] :] -= self._shape[1]
        middle = self._canvas / 2.0
        across, down = (columns + middle) * self._factor - pose.x, (rows + middle) * self._factor - pose.y
        best[(down[:, None] ** 2 + across[None] ** 2 < radius * radius).ravel()] = -1.0
        place = int(best.argmax())
        if best[place] < _NEARLY * highest:
            return None
        return self._describe(int(likeness[:, place].argmax()), place)

    def _choose(self, peaks: NDArray[np.float32]) -> list[int]:
        """Return the poses with a peak higher than those of the neighbouring angles, the highest first."""
        order = np.argsort(-peaks)
        chosen: list[int] = []
        around = self._across if self._across * _STEP >= 359.0 else 10 * self._across
        for number in order.tolist():
            if len(chosen) == _CANDIDATES or peaks[number] < peaks[order[0]] - _WORSE:
                break
            apart = [abs(number % self._across - other % self._across) for other in chosen]
            if all(min(gap, around - gap) > 1 for gap in apart):
                chosen.append(number)
        return chosen

    def _describe(self, number: int, place: int) -> Pose:
        row, column = divmod(place, self._shape[1])
        row -= self._shape[0] * (row >= self._size[1])
        column -= self._shape[1] * (column >= self._size[0])
        angle, scale = self._poses[number]
        middle = self._canvas / 2.0
        return Pose((column + middle) * self._factor, (row + middle) * self._factor, float(angle), float(scale))

    def _turn(self, small: Plane, angle: float, scale: float) -> tuple[Plane, Plane]:
        """Return a turned reference (mean 0, length 1) and the places that it covers, float32 [canvas, canvas]."""
        pose = Pose(self._canvas / 2.0, self._canvas / 2.0, angle, scale)
        matrix = centred(matrix_at_pose(pose, small.shape, 1))
        size = (self._canvas, self._canvas)
        mask = (cv2.warpAffine(np.ones_like(small), matrix, size) > 0.5).astype(np.float32)
        turned = cv2.warpAffine(small, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        turned = (turned - (turned * mask).sum() / mask.sum()) * mask
        return (turned / max(1e-6, float(np.linalg.norm(turned)))).astype(np.float32), mask

    def _share_masks(self, small: Plane) -> tuple[list[int], Plane]:
        """Return the mask of each pose and the masks [n, canvas, canvas]: neighbours share one, and so do half a turn.

        The contrast under a slightly turned mask is nearly the same, and here it only ranks the candidates.
        """
        shared = _SHARING * _STEP
        keys = [(round(angle / shared) % round(180.0 / shared) * shared, scale) for angle, scale in self._poses]
        unique = sorted(set(keys))
        return [unique.index(key) for key in keys], np.stack([self._turn(small, *key)[1] for key in unique])

    def _find_allowed(self, margin: float) -> Plane:
        """Return 1 where the reference's middle is inside the frame by a margin, else 0; float32, of a transform."""
        allowed = []
        for side, whole in zip(self._size[::-1], self._shape, strict=True):
            shift = np.arange(whole)
            middle = np.where(shift >= side, shift - whole, shift) + self._canvas / 2.0
            edge = min(margin, side / 2.0 - 1.0)
            allowed.append((middle >= edge) & (middle <= side - edge))
        return np.asarray(np.outer(*allowed), np.float32)


@lru_cache(maxsize=16)
def _open_finder(alignment: Alignment) -> Finder:
    return Finder(alignment.patch, _decode(alignment.reference), turn=alignment.turn, scale=alignment.scale)


def _check_patch(patch: Rectangle, picture: Frame) -> None:
    x, y, width, height = patch
    across, down = picture.shape[1], picture.shape[0]
    if x + width > across or y + height > down:
        raise DatasetError(
            f"the reference patch of {width}x{height} pixels at {x},{y} does not fit into its picture of "
            f"{across}x{down} pixels; draw it again"
        )
    if min(width, height) < SMALLEST_PATCH:
        raise DatasetError(
            f"the reference patch is {width}x{height} pixels; draw one of at least {SMALLEST_PATCH} pixels a side"
        )
    if picture[y : y + height, x : x + width].min() == picture[y : y + height, x : x + width].max():
        raise DatasetError("the reference patch has no contrast; draw it where the part has structure")


def _cut_patch(contrast: Plane, patch: Rectangle) -> Plane:
    """Return the contrast of the patch in its own picture."""
    factor = shrink_factor(patch)
    x, y, width, height = patch
    pose = Pose((x + width / 2.0) / factor, (y + height / 2.0) / factor, 0.0)
    return _sample(contrast, pose, (height // factor, width // factor), 1)


def _median(patches: NDArray[np.float32]) -> Plane:
    return np.asarray(np.median(patches, axis=0), np.float32)


def _encode(reference: Plane) -> str:
    """Return a reference as the text of a PNG: 128 is no contrast, the strongest one is 1 or 255."""
    strongest = max(1e-3, float(np.abs(reference).max()))
    picture = np.rint(128.0 + reference * (127.0 / strongest)).astype(np.uint8)
    return base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()


def _decode(text: str) -> Plane:
    """Return the reference of a PNG's text; raises ImageError if it is damaged."""
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


def _spread_angles(turn: float) -> NDArray[np.float64]:
    """Return the angles of the coarse search, in degrees, about ten apart and 0 among them."""
    if turn > 180.0 - _STEP / 2.0:
        return np.arange(-180.0 + _STEP, 180.0 + 1e-6, _STEP)
    count = int(np.ceil(turn / _STEP - 0.5))
    return np.linspace(-count * _STEP, count * _STEP, 2 * count + 1)


def _spread_scales(scale: float) -> NDArray[np.float64]:
    count = int(np.ceil(scale / _SCALE_STEP - 0.5))
    return np.asarray(np.linspace(1.0 - scale, 1.0 + scale, 2 * max(count, 0) + 1) if count > 0 else np.ones(1))


def _spectra(planes: Plane, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    return np.asarray(np.fft.rfft2(planes, shape))


def _shrink(plane: Plane, factor: int) -> Plane:
    if factor == 1:
        return plane
    height, width = plane.shape[0] // factor, plane.shape[1] // factor
    whole = plane[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _blur(plane: Plane) -> Plane:
    """Return a plane of the coarse search without lines so thin that they miss each other between two angles."""
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _BLUR), np.float32)


def _make_level(reference: Plane, factor: int, scales: bool) -> _Level:
    small = _shrink(reference, factor)
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
    rows -= rows.mean(axis=1, keepdims=True)  # brightness and contrast are free
    rows -= np.outer(rows @ flat, flat)
    steps = np.linalg.pinv(rows.T)
    return _Level(factor, values, steps.astype(np.float32), float(np.hypot(width, height) / 2.0))


def _normalise(plane: Plane) -> Plane:
    """Return values with mean 0 and length 1; those without contrast become 0."""
    centred = plane - plane.mean()
    length = float(np.linalg.norm(centred))
    return np.asarray(centred / np.float32(max(length, 1e-6)), np.float32)


def _sample(plane: Plane, pose: Pose, shape: tuple[int, ...], factor: int) -> Plane:
    """Return what a plane shows under the reference at a pose; plane and shape are shrunk by factor."""
    matrix = centred(matrix_at_pose(pose, shape, factor))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (shape[1], shape[0])
    return np.asarray(cv2.warpAffine(plane, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _step_back(pose: Pose, step: NDArray[np.float32], factor: int) -> Pose:
    """Return a pose after the inverse of a small step (x, y, rotation in radians, scale) of the reference."""
    turned = pose.angle - float(np.rad2deg(step[2]))
    scale = pose.scale / (1.0 + float(step[3])) if len(step) > 3 else pose.scale
    moved = _move(dataclasses.replace(pose, angle=turned, scale=scale), -float(step[0]), -float(step[1]), factor)
    return dataclasses.replace(moved, angle=180.0 - (180.0 - turned) % 360.0)


def _move(pose: Pose, across: float, down: float, factor: int) -> Pose:
    """Return a pose moved along the part's own axes, by pixels of a level."""
    angle = np.deg2rad(pose.angle)
    cos, sin = pose.scale * factor * np.cos(angle), pose.scale * factor * np.sin(angle)
    x, y = pose.x + float(cos * across + sin * down), pose.y + float(cos * down - sin * across)
    return dataclasses.replace(pose, x=x, y=y)
