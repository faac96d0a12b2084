"""Coarse search of an alignment: the reference at every tenth degree, correlated with the whole frame.

It works at about 80 pixels a side, with Fourier transforms; places outside the turned reference do not count.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.images.placement import Pose, centred, matrix_at_pose

Plane = NDArray[np.float32]

ANGLE_STEP = 10.0
"""Degrees between the turned references."""

_COARSE_FRAME, _COARSE_PATCH = 80, 14  # smallest sides of frame and patch in the coarse search
_BLUR = 1.0  # pixels; about the motion of the reference's ends at half an angle step
_SHARING = 3  # turned references that share one mask
_SCALE_STEP = 0.06
_CANDIDATES = 4
_WORSE = 0.15  # largest difference of correlation between a candidate and the best one
_NEARLY = 0.7  # a peak below this share of the highest one is not a part
_FLAT = 0.1  # a place below this share of the frame's highest contrast is flat


class CoarseSearch:
    """The coarse search in frames of one size: spectra of the turned references, and the allowed places of a peak.

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
        self._shape = tuple(cv2.getOptimalDFTSize(side + pad) for side in self._size[::-1])
        templates = np.stack([self._turn(small, *pose)[0] for pose in self._poses])
        self._templates = np.conj(_spectra(templates, self._shape))
        self._owner, masks = self._share_masks(small)
        self._masks = np.conj(_spectra(masks, self._shape))
        self._counts = masks.sum(axis=(1, 2), dtype=np.float32)[:, None, None]
        self._allowed = self._find_allowed(margin)

    def find(self, contrast: Plane) -> tuple[list[Pose], Plane]:
        """Return the best poses, and the likeness of all places.

        Parameters
        ----------
        contrast
            float32 [h, w], the local contrast of the frame.

        Returns
        -------
        tuple[list[Pose], Plane]
            The poses in pixels of the contrast, best first; and the likeness, float32 [poses, h * w], for `find_other`.
        """
        plane = _blur(shrink(contrast, self._factor)[: self._size[1], : self._size[0]])
        spectra = _spectra(np.stack([plane, plane * plane]), self._shape)
        sums = np.fft.irfft2(spectra[:, None] * self._masks, self._shape)
        energy = sums[1] - sums[0] * sums[0] / self._counts
        floor = np.float32(max(_FLAT * float(energy.max()), 1e-3))
        length = 1.0 / np.sqrt(np.maximum(energy, floor))
        length *= self._allowed
        likeness = np.asarray(np.fft.irfft2(spectra[0] * self._templates, self._shape), np.float32)
        flat: Plane = likeness.reshape(len(likeness), -1)
        weights = length.reshape(len(length), -1)
        peaks = np.empty(len(flat), np.float32)
        places = np.empty(len(flat), np.intp)
        for number, owner in enumerate(self._owner):
            np.multiply(flat[number], weights[owner], out=flat[number])
            places[number] = flat[number].argmax()
            peaks[number] = flat[number, places[number]]
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
        row, column = divmod(place, self._shape[1])
        row -= self._shape[0] * (row >= self._size[1])
        column -= self._shape[1] * (column >= self._size[0])
        angle, scale = self._poses[number]
        middle = self._canvas / 2.0
        return Pose((column + middle) * self._factor, (row + middle) * self._factor, float(angle), float(scale))

    def _turn(self, small: Plane, angle: float, scale: float) -> tuple[Plane, Plane]:
        """Return a turned reference (mean 0, length 1) and its covered places, float32 [canvas, canvas]."""
        pose = Pose(self._canvas / 2.0, self._canvas / 2.0, angle, scale)
        matrix = centred(matrix_at_pose(pose, small.shape, 1))
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

    def _find_allowed(self, margin: float) -> Plane:
        """Return 1 where the reference's middle is inside the frame by a margin, else 0; float32 of a transform's shape."""
        allowed = []
        for side, whole in zip(self._size[::-1], self._shape, strict=True):
            shift = np.arange(whole)
            middle = np.where(shift >= side, shift - whole, shift) + self._canvas / 2.0
            edge = min(margin, side / 2.0 - 1.0)
            allowed.append((middle >= edge) & (middle <= side - edge))
        return np.asarray(np.outer(*allowed), np.float32)


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


def _spectra(planes: Plane, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    return np.asarray(np.fft.rfft2(planes, shape))
