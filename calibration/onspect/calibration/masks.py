"""Error maps held against the masks of the defects, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onspect.calibration.pixels import PixelAreas, PixelEvidence, PixelPoint, decode_mask
from onspect.calibration.scores import Observation
from onspect.runtime.decode import read_image
from onspect.runtime.errors import ImageError


@dataclass(frozen=True)
class PixelMetrics:
    """Areas over pixels with what they rest on: how many defective images had a mask, none, an empty or bad one.

    point: what the file's own cut of the error map marks, None where there is nothing to hold it against.
    """

    areas: PixelAreas
    point: PixelPoint | None
    with_mask: int
    without_mask: int
    empty_masks: int
    unreadable_masks: tuple[str, ...]
    good_images: int


class MaskReader:
    """Holds error maps against their masks, and counts the images that have none that can be used."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted  # without masks, the pixels of good images have nothing to be compared with
        self._evidence = PixelEvidence()
        self._with_mask = self._without_mask = self._empty_masks = self._good_images = 0
        self.unreadable: list[str] = []

    def add(self, observation: Observation) -> None:
        """Take one image's error map, and read its mask where it has one."""
        image = observation.scored.image
        if not image.defective:
            self._good_images += 1
            if self._wanted:
                nothing = np.zeros((observation.height, observation.width), np.bool_)
                self._evidence.add(observation.error_map, nothing)
        elif image.mask is None:
            self._without_mask += 1
        else:
            self._add_mask(observation, image.mask)

    def _add_mask(self, observation: Observation, path: Path) -> None:
        try:
            mask = decode_mask(read_image(path))
        except ImageError as error:
            self.unreadable.append(f"{str(path)!r}: {error}")
            return
        if not mask.any():
            self._empty_masks += 1
            return
        self._with_mask += 1
        self._evidence.add(observation.error_map, mask)

    def find_best_f1(self) -> float | None:
        """Return the cut of the error map that marks the masks best; None where no mask can be used."""
        return self._evidence.find_best_f1()

    def measure(self, map_threshold: float) -> PixelMetrics:
        """Return all figures, with those of a cut of the error map."""
        return PixelMetrics(
            areas=self._evidence.measure(),
            point=self._evidence.measure_at(map_threshold),
            with_mask=self._with_mask,
            without_mask=self._without_mask,
            empty_masks=self._empty_masks,
            unreadable_masks=tuple(self.unreadable),
            good_images=self._good_images,
        )
