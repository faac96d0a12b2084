"""Comparison of error maps with the masks of the defects, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.calibration.metrics.pixel import PixelAreas, PixelEvidence, PixelPoint, decode_mask
from onspect.calibration.scores import Observation
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ImageError
from onspect.runtime.images.decode import Frame, read_image

_MOST_MARKED = 0.5
_MOST_EDGE = 0.9
_LEAST_SCALE = 16  # highest ratio of an image's longer side to that of its mask
_FEWEST_TURNED = 8  # lowest number of masks that can show that they are turned
_SHARE_TURNED = 0.9  # lowest share of the masks that fit better if they are turned
_GAIN_TURNED = 1.5  # lowest ratio of the error under the turned mask to that under the mask
_TURNS: dict[str, Callable[[NDArray[np.bool_]], NDArray[np.bool_]]] = {
    "mirrored left to right": np.fliplr,
    "mirrored top to bottom": np.flipud,
    "turned by half": lambda mask: mask[::-1, ::-1],
    "transposed": lambda mask: mask.T,
    "turned by a quarter to the left": lambda mask: np.rot90(mask),
    "turned by a quarter to the right": lambda mask: np.rot90(mask, -1),
}


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics over pixels, with the number of images that they are based on."""

    areas: PixelAreas
    """Metrics without a threshold."""
    point: PixelPoint | None
    """Figures at the file's threshold of the error map; None without a threshold or without usable masks."""
    with_mask: int
    """Number of defective images with a mask that can be used."""
    without_mask: int
    """Number of defective images without a mask."""
    empty_masks: int
    """Number of defective images with an empty mask."""
    unreadable_masks: tuple[str, ...]
    """Masks that cannot be used, each with its path and the reason."""
    good_images: int
    """Number of good images."""
    examples: tuple[str, ...] = ()
    """Path of an empty mask, if there are any."""
    turned: str | None = None
    """Transformation after which the masks fit the error maps much better; None if they fit best without one."""

    def list_warnings(self) -> list[str]:
        """Return the faults of the masks.

        Returns
        -------
        list[str]
            One sentence for each fault.
        """
        unreadable, masks = len(self.unreadable_masks), self.with_mask + self.empty_masks + len(self.unreadable_masks)
        found = []
        if unreadable:
            found.append(f"{unreadable} of {masks} masks cannot be used, such as {self.unreadable_masks[0]}")
        if self.empty_masks:
            verb = "mask of a defective image is" if self.empty_masks == 1 else "masks of defective images are"
            found.append(f"{self.empty_masks} {verb} empty, such as {self.examples[0]!r}: pixel figures leave it out")
        if self.turned:
            found.append(f"the masks fit the error maps better if they are {self.turned}: compare one with its image")
        if masks and self.without_mask:
            verb = "image has" if self.without_mask == 1 else "images have"
            found.append(f"{self.without_mask} of {masks + self.without_mask} defective {verb} no mask")
        return found


def read_mask(image: LabelledImage, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of an image; several masks are joined.

    A mask that is smaller or larger than its image, but has the same aspect ratio, is scaled.

    Parameters
    ----------
    image
        A labelled image with a mask.
    height, width
        Size of the image in pixels.

    Returns
    -------
    NDArray[np.bool_]
        bool [height, width], True where the part is defective.

    Raises
    ------
    ImageError
        If a mask cannot be read, has another aspect ratio than its image, or seems to be inverted.
    """
    assert image.mask is not None
    parts = [_read_part(path, height, width) for path in (image.mask, *image.further_masks)]
    return np.asarray(np.logical_or.reduce(parts), np.bool_)


def _read_part(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    frame = read_image(path)
    data = path.read_bytes()
    if frame.min() == frame.max():
        frame = _read_alpha(data, frame)
    mask = decode_mask(frame, lossy=data.startswith(b"\xff\xd8"))
    _check_shape(mask.shape, height, width)
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if mask.mean() > _MOST_MARKED and edge.mean() > _MOST_EDGE and not mask.all():
        raise ImageError(
            f"the mask marks {mask.mean():.0%} of the image and its edge: is it inverted? Mark defects white"
        )
    return mask if mask.shape == (height, width) else _fit(mask, (height, width))


def _read_alpha(data: bytes, frame: Frame) -> Frame:
    """Return the alpha channel of a mask if only that channel has different values, otherwise the mask unchanged."""
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4 or raw[:, :, 3].min() == raw[:, :, 3].max():
        return frame
    return np.ascontiguousarray(raw[:, :, 3])


def _check_shape(shape: tuple[int, ...], height: int, width: int) -> None:
    """Raise ImageError if a mask does not have the aspect ratio of its image."""
    is_alike = abs(shape[0] * width / shape[1] - height) <= max(1.0, height / shape[0])
    if is_alike and max(shape) * _LEAST_SCALE >= max(height, width):
        return
    turned = ", turned by a quarter" if (shape[1], shape[0]) == (height, width) else ""
    raise ImageError(
        f"the mask is {shape[1]}x{shape[0]} pixels{turned}, its image {width}x{height}; save it in the image's shape"
    )


def _fit(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    resized = cv2.resize(mask.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized > 0, np.bool_)


class MaskReader:
    """Compares error maps with their masks, and counts the images without a usable mask.

    If `wanted` is False, no image has a mask, and the error maps of good images are not collected.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted  # without masks, pixels of good images have no counterpart
        self._evidence = PixelEvidence()
        self._with_mask = self._without_mask = self._empty_masks = self._good_images = 0
        self.unreadable: list[str] = []
        self._examples: list[str] = []
        self._fits: list[dict[str, float]] = []

    def add(self, observation: Observation) -> None:
        """Add the error map of an image, and its mask if it has one.

        Parameters
        ----------
        observation
            A scored image with its error map.
        """
        image = observation.scored.image
        if not image.defective:
            self._good_images += 1
            if self._wanted:
                nothing = np.zeros((observation.height, observation.width), np.bool_)
                self._evidence.add(observation.map_in_image(), nothing)
        elif image.mask is None:
            self._without_mask += 1
        else:
            self._add_mask(observation, image)

    def _add_mask(self, observation: Observation, image: LabelledImage) -> None:
        try:
            mask = read_mask(image, observation.height, observation.width)
        except ImageError as error:
            self.unreadable.append(f"{str(image.mask)!r}: {error}")
            return
        if not mask.any():
            self._empty_masks += 1
            self._examples.append(str(image.mask))
            return
        self._with_mask += 1
        error_map = observation.map_in_image()
        self._evidence.add(error_map, mask)
        self._fits.append(_measure_fits(error_map, mask))

    def find_best_f1(self) -> float | None:
        """Return the threshold of the error map with the highest F1 of its pixels against the masks.

        Returns
        -------
        float | None
            A value of the error map; None if no mask can be used.
        """
        return self._evidence.find_best_f1()

    def measure(self, map_threshold: float | None) -> PixelMetrics:
        """Return all metrics over pixels.

        Parameters
        ----------
        map_threshold
            Threshold of the error map; None for metrics without a threshold only.

        Returns
        -------
        PixelMetrics
            Metrics of all images that were added.
        """
        return PixelMetrics(
            areas=self._evidence.measure(),
            point=None if map_threshold is None else self._evidence.measure_at(map_threshold),
            with_mask=self._with_mask,
            without_mask=self._without_mask,
            empty_masks=self._empty_masks,
            unreadable_masks=tuple(self.unreadable),
            good_images=self._good_images,
            examples=tuple(self._examples[:1]),
            turned=_find_turn(self._fits),
        )


def _measure_fits(error_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Return, by transformation, the ratio of the error under the transformed mask to the error under the mask."""
    found = {}
    for name, turn in _TURNS.items():
        turned = turn(mask)
        if turned.shape == mask.shape:
            found[name] = _mean_under(error_map, turned) / max(_mean_under(error_map, mask), 1e-12)
    return found


def _mean_under(error_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    small = cv2.resize(mask.astype(np.float32), error_map.shape[::-1], interpolation=cv2.INTER_AREA)
    return float((error_map * small).sum(dtype=np.float64)) / max(float(small.sum(dtype=np.float64)), 1e-12)


def _find_turn(fits: Sequence[dict[str, float]]) -> str | None:
    """Return the transformation after which the masks fit the error maps much better, or None."""
    found: dict[str, float] = {}
    for name in _TURNS:
        gains = [fit[name] for fit in fits if name in fit]
        better = sum(gain > 1.0 for gain in gains)
        if len(gains) >= _FEWEST_TURNED and better >= _SHARE_TURNED * len(gains):
            found[name] = float(np.median(gains))
    best = max(found, key=lambda name: found[name], default=None)
    return best if best is not None and found[best] >= _GAIN_TURNED else None
