"""Training images, read once into memory as the runtime will see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.dataset.crop import Crop, fit_crop
from onspect.runtime.dataset.folder import training_images
from onspect.runtime.dataset.good_images import Progress, load_good_images
from onspect.runtime.dataset.good_pictures import warn_of_few
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.working_size import median_size, working_size
from onspect.runtime.model.schema import Preprocess
from onspect.runtime.teaching.pictures import choose_working_size
from onspect.training.presets import FEATURES, PRESETS, Preset, check_preset, choose_preset

__all__ = ["Progress", "TrainingSet", "load_training_set"]


@dataclass(frozen=True)
class TrainingSet:
    """Good images as the model takes them: uint8 [n, height, width, channels], in the order of their names.

    fingerprints: one for each image. recipe: how a frame became one of them. preset: the one that gave the size.
    """

    folder: Path
    images: NDArray[np.uint8]
    fingerprints: tuple[str, ...]
    recipe: Preprocess
    preset: str


def load_training_set(
    folder: Path,
    *,
    preset: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    white_level: int = 65535,
    any_size: bool = False,
    region: RegionFile | None = None,
    crop: Crop | None = None,
    progress: Progress[Any] | None = None,
) -> TrainingSet:
    """Read every good image of a dataset folder (`layout.training_images`).

    size is (width, height) to work at. Without it, `working_size` chooses it from the sizes of the images and the
    preset's pixel budget, for preset ``features`` `choose_working_size`, as ``onspect teach`` does. Without a preset
    `choose_preset` chooses it.
    channels is 1 or 3; without it, 1 where every image is grey.
    any_size lets the model accept frames of any size later; else those of the training images' one size, or from half
    to twice what they span.
    region is what images are cropped to, and by what the part is found before that; crop is the same of an earlier run.

    Raises DatasetError where there are no images or some cannot be read, ChoiceError for a preset or size that is none.
    """
    if preset is not None and preset != FEATURES:
        check_preset(preset)

    def find_preset(shapes: Sequence[tuple[int, int]], depth: int) -> Preset:
        return PRESETS[preset or choose_preset(shapes if size is None else [size[::-1]], depth)]

    def choose_size(shapes: Sequence[tuple[int, int]], depth: int) -> tuple[int, int]:
        if size is not None:
            return size[1], size[0]
        chosen = find_preset(shapes, depth)
        if chosen.name == FEATURES:
            return choose_working_size(shapes)
        if chosen.pixel_budget is None:
            height, width = median_size(shapes)
            return round(height), round(width)
        return working_size(shapes, chosen.pixel_budget)

    paths = training_images(folder)
    if region is not None:
        crop = fit_crop(region, paths, white_level=white_level)
    found = load_good_images(
        paths,
        choose_size,
        channels=channels,
        white_level=white_level,
        any_size=any_size,
        crop=crop,
        progress=progress,
    )
    warn_of_few(len(found.images))
    chosen = find_preset(found.crops, found.recipe.channels).name
    return TrainingSet(folder, found.images, found.fingerprints, found.recipe, chosen)
