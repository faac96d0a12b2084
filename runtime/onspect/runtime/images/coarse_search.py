"""Coarse search of an alignment: the reference at every tenth degree, correlated with the whole frame.

It works at about 80 pixels a side, with Fourier transforms; places outside the turned reference do not count. The
correlation is computed only where the reference's middle may be.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.images.placement import Pose, matrix_at_pose

Plane = NDArray[np.float32]

ANGLE_STEP = 10.0
"""Degrees between the turned references."""

_COARSE_FRAME, _COARSE_PATCH = 80, 14  # smallest sides of frame and patch in the coarse search
_BLUR = 1.0  # pixels; about the motion of the reference's ends at half an angle step
_SHARING = 3  # turned references that share one mask
_SCALE_STEP = 0.06
_TOGETHER = 6  # turned references that are transformed at a time: their spectra fit into the processor's cache
_CANDIDATES = 4
_WORSE = 0.15  # largest difference of correlation between a candidate and the best one
_NEARLY = 0.7  # a peak below this share of the highest one is not a part
_FLAT = 0.1  # a place below this share of the frame's highest contrast is flat


class CoarseSearch:
    """The coarse search in frames of one size: spectra of the turned references, and the places of a peak.

    Parameters
    ----------
    reference
        Local contrast of the reference, float32 [h, w].
    size
        Width and height of the frames, at the scale of the reference.
    angles
        Angles in degrees.
    scales
        Sizes relative to the reference.
    """

    def __init__(
        self, reference: Plane, size: tuple[int, int], angles: NDArray[np.float64], scales: NDArray[np.float64]
    ) -> None:
        shorter = min(reference.shape)
        self._factor = max(1, min(shorter // _COARSE_PATCH, max(size) // _COARSE_FRAME))
        self._poses = [(angle, scale) for scale in scales for angle in angles]
        self._across = len(angles)
        small = _blur(shrink(reference, self._factor))
        self._canvas = int(np.ceil(np.hypot(*small.shape) * scales.max())) + 2
        self._size = size[0] // self._factor, size[1] // self._factor
        margin = 0.35 * min(small.shape)  # distance of the reference's middle from the frame's edge
        pad = int(np.ceil(max(0.0, self._canvas / 2.0 - margin)))
        self._shape = tuple(4 * cv2.getOptimalDFTSize(-(-(side + pad) // 4)) for side in self._size[::-1])
        (self._left, self._columns), (self._top, self._rows) = (self._find_places(side, margin) for side in self._size)
        self._templates = self._transform(np.stack([self._turn(small, *pose)[0] for pose in self._poses]))
        self._owner, masks = self._share_masks(small)
        self._masks = self._transform(masks)
        self._counts = masks.sum(axis=(1, 2), dtype=np.float32)[:, None, None]

    def find(self, contrast: Plane) -> tuple[list[Pose], Plane]:
        """Return the best poses, and the likeness of all places.

        Parameters
        ----------
        contrast
            float32 [h, w], the local contrast of the frame.

        Returns
        -------
        tuple[list[Pose], Plane]
            The poses in pixels of the contrast, best first; and the likeness, float32 [poses, places], for
            `find_other`.
        """
        plane = _blur(shrink(contrast, self._factor)[: self._size[1], : self._size[0]])
        spectra = np.asarray(np.fft.rfft2(np.stack([plane, plane * plane]), self._shape), np.complex64)
        sums = self._transform_back(spectra[:, None] * self._masks)
        energy = sums[1] - sums[0] * sums[0] / self._counts
        floor = np.float32(max(_FLAT * float(energy.max()), 1e-3))
        weights = 1.0 / np.sqrt(np.maximum(energy, floor))
        likeness = np.empty((len(self._poses), self._rows, self._columns), np.float32)
        for first in range(0, len(likeness), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            products = self._transform_back(spectra[0] * self._templates[some])
            np.multiply(products, weights[self._owner[some]], out=likeness[some])
        flat: Plane = likeness.reshape(len(likeness), -1)
        places = flat.argmax(axis=1)
        peaks = flat[np.arange(len(flat)), places]
        return [self._describe(number, int(places[number])) for number in self._choose(peaks)], flat

    def find_other(self, likeness: Plane, pose: Pose, radius: float) -> Pose | None:
        """Return the best pose that is not near another one.

        Parameters
        ----------
        likeness
            Likeness of all places, from `find`.
        pose
            The other pose.
        radius
            Smallest distance in pixels.

        Returns
        -------
        Pose | None
            The pose; None if no such place is nearly as good.
        """
        best = likeness.max(axis=0)
        highest = float(best.max())
        rows, columns = np.arange(self._rows, dtype=np.float32), np.arange(self._columns, dtype=np.float32)
        middle = self._canvas / 2.0
        across = (columns + self._left + middle) * self._factor - pose.x
        down = (rows + self._top + middle) * self._factor - pose.y
        best[(down[:, None] ** 2 + across[None] ** 2 < radius * radius).ravel()] = -1.0
        place = int(best.argmax())
        if best[place] < _NEARLY * highest:
            return None
        return self._describe(int(likeness[:, place].argmax()), place)

    def _choose(self, peaks: NDArray[np.float32]) -> list[int]:
        """Return the poses whose peak is higher than those of the neighbouring angles, the highest first."""
        order = np.argsort(-peaks)
        chosen: list[int] = []
        around = self._across if self._across * ANGLE_STEP >= 359.0 else 10 * self._across
        for number in order.tolist():
            if len(chosen) == _CANDIDATES or peaks[number] < peaks[order[0]] - _WORSE:
                break
            apart = [abs(number % self._across - other % self._across) for other in chosen]
            if all(min(gap, around - gap) > 1 for gap in apart):
                chosen.append(number)
        return chosen

    def _describe(self, number: int, place: int) -> Pose:
        row, column = divmod(place, self._columns)
        angle, scale = self._poses[number]
        x, y = (shift + self._canvas / 2.0 for shift in (self._left + column, self._top + row))
        return Pose(x * self._factor, y * self._factor, float(angle), float(scale))

    def _turn(self, small: Plane, angle: float, scale: float) -> tuple[Plane, Plane]:
        """Return a turned reference (mean 0, length 1) and its covered places, float32 [canvas, canvas]."""
        pose = Pose(self._canvas / 2.0, self._canvas / 2.0, angle, scale)
        matrix = matrix_at_pose(pose, small.shape, 1)
        size = (self._canvas, self._canvas)
        mask = (cv2.warpAffine(np.ones_like(small), matrix, size) > 0.5).astype(np.float32)
        turned = cv2.warpAffine(small, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        turned = (turned - (turned * mask).sum() / mask.sum()) * mask
        return (turned / max(1e-6, float(np.linalg.norm(turned)))).astype(np.float32), mask

    def _share_masks(self, small: Plane) -> tuple[list[int], Plane]:
        """Return the mask of each pose and the masks [n, canvas, canvas]; neighbours and opposite angles share a mask.

        The contrast under a slightly turned mask is nearly equal, and here it only ranks the candidates.
        """
        shared = _SHARING * ANGLE_STEP
        keys = [(round(angle / shared) % round(180.0 / shared) * shared, scale) for angle, scale in self._poses]
        unique = sorted(set(keys))
        return [unique.index(key) for key in keys], np.stack([self._turn(small, *key)[1] for key in unique])

    def _find_places(self, side: int, margin: float) -> tuple[int, int]:
        """Return the first shift of the canvas and their number, for a middle that is inside the frame by a margin."""
        edge = min(margin, side / 2.0 - 1.0)
        first = math.ceil(edge - self._canvas / 2.0)
        return first, math.floor(side - edge - self._canvas / 2.0) - first + 1

    def _transform(self, planes: Plane) -> NDArray[np.complex64]:
        """Return conjugate spectra of planes [n, canvas, canvas], whose correlation begins at the first place."""
        rows, columns = self._shape
        padded = np.zeros((len(planes), rows, columns), np.float32)
        padded[:, : self._canvas, : self._canvas] = planes[:, :rows, :columns]
        spectra = np.fft.rfft2(np.roll(padded, (self._top, self._left), (1, 2)))
        return np.conj(np.asarray(spectra, np.complex64))

    def _transform_back(self, spectra: NDArray[np.complex64]) -> Plane:
        """Return the correlations [..., rows, columns] of the places from their spectra."""
        half = np.fft.ifft(spectra, axis=-2)[..., : self._rows, :]
        return np.asarray(np.fft.irfft(half, self._shape[1])[..., : self._columns])


def spread_angles(turn: float) -> NDArray[np.float64]:
    """Return the angles of the coarse search, about ten degrees apart, with 0 among them.

    Parameters
    ----------
    turn
        Largest rotation in degrees, 0 to 180.

    Returns
    -------
    NDArray[np.float64]
        Angles in degrees.
    """
    if turn > 180.0 - ANGLE_STEP / 2.0:
        return np.arange(-180.0 + ANGLE_STEP, 180.0 + 1e-6, ANGLE_STEP)
    count = int(np.ceil(turn / ANGLE_STEP - 0.5))
    return np.linspace(-count * ANGLE_STEP, count * ANGLE_STEP, 2 * count + 1)


def spread_scales(scale: float) -> NDArray[np.float64]:
    """Return the sizes of the coarse search, at most 0.06 apart, with 1 among them.

    Parameters
    ----------
    scale
        Largest change of size as a share.

    Returns
    -------
    NDArray[np.float64]
        Sizes relative to the reference.
    """
    count = int(np.ceil(scale / _SCALE_STEP - 0.5))
    return np.asarray(np.linspace(1.0 - scale, 1.0 + scale, 2 * max(count, 0) + 1) if count > 0 else np.ones(1))


def shrink(plane: Plane, factor: int) -> Plane:
    """Return the means of squares of factor x factor pixels; incomplete squares at the right and bottom are left out.

    Parameters
    ----------
    plane
        float32 [h, w].
    factor
        Shrink factor, 1 or more.

    Returns
    -------
    Plane
        float32 [h // factor, w // factor].
    """
    if factor == 1:
        return plane
    height, width = plane.shape[0] // factor, plane.shape[1] // factor
    whole = plane[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _blur(plane: Plane) -> Plane:
    """Return a plane of the coarse search without lines that are too thin to match between two angles."""
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _BLUR), np.float32)
