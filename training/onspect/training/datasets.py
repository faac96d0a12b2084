"""Training images, read once into memory and prepared as the runtime prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.dataset.crop import Crop, fit_crop
from onspect.runtime.dataset.folder import training_images
from onspect.runtime.dataset.good_images import load_good_images, warn_of_few
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.working_size import median_size, working_size
from onspect.runtime.model.schema import Preprocess
from onspect.runtime.progress import Progress
from onspect.runtime.teaching.pictures import choose_working_size
from onspect.training.presets import FEATURES, PRESETS, Preset, check_preset, choose_preset

__all__ = ["TrainingSet", "load_training_set"]


@dataclass(frozen=True)
class TrainingSet:
    """Good images as the model takes them, in the order of their names."""

    folder: Path
    """The dataset folder."""
    images: NDArray[np.uint8]
    """uint8 [n, height, width, channels], BGR or grey."""
    fingerprints: tuple[str, ...]
    """Fingerprint of each image's file."""
    preprocess: Preprocess
    """How a frame becomes one of the images."""
    preset: str
    """Preset that gave the working size."""


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
    progress: Progress | None = None,
) -> TrainingSet:
    """Read every good image of a dataset folder.

    Parameters
    ----------
    folder
        The dataset folder.
    preset
        Name of a preset; None chooses it from the sizes of the images.
    size
        Width and height to work at, in pixels; None chooses it from the images and the preset's pixel budget.
    channels
        1 or 3; None takes 1 if every image is grey.
    white_level
        Value of 16-bit images that is white, 1 to 65535.
    any_size
        Let the model accept frames of any size later. Otherwise it accepts the training images' one size, or half to
        twice their range of sizes.
    region
        Region that images are cropped to, with the alignment that finds the part.
    crop
        The same of an earlier run, in place of `region`.
    progress
        Wraps the reading, for a progress bar.

    Returns
    -------
    TrainingSet
        The images.

    Raises
    ------
    DatasetError
        If there are no images, or one cannot be read.
    ChoiceError
        If the preset or the size is not valid.
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
    chosen = find_preset(found.crops, found.preprocess.channels).name
    return TrainingSet(folder, found.images, found.fingerprints, found.preprocess, chosen)
