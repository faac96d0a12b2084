"""The images that a bench judges: the user's, or drawn ones in the model's size."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.images.decode import read_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.model.schema import Preprocess

_MOST = 128
_DRAWN = 16


def choose_images(paths: Sequence[Path], inspectors: Sequence[Inspector]) -> list[Path]:
    """Choose up to 128 of the images, evenly spread and in random order. Some figures use only the first ones.

    Parameters
    ----------
    paths
        Image files.
    inspectors
        The models.

    Returns
    -------
    list[Path]
        The chosen files.

    Raises
    ------
    DatasetError
        If a model cannot judge an image.
    """
    chosen = list(paths[:: -(-len(paths) // _MOST)])
    random.Random(0).shuffle(chosen)  # noqa: S311 - no secret
    for path in chosen:
        try:
            frame = read_image(path)
            for inspector in inspectors:
                inspector.prepare(frame)
        except ImageError as error:
            raise DatasetError(f"cannot measure on {str(path)!r}: {error}; leave it out") from error
    return chosen


def draw_images(folder: Path, preprocess: Preprocess) -> list[Path]:
    """Write drawn JPEG images in the size and colour that a model was trained on.

    Parameters
    ----------
    folder
        The folder for the files.
    preprocess
        How the model prepares frames.

    Returns
    -------
    list[Path]
        The files.

    Raises
    ------
    DatasetError
        If the model aligns frames: drawn images show no part to find.
    """
    if preprocess.align is not None:
        raise DatasetError(
            "the model finds the part before it judges, and drawn images show none; give pictures of parts"
        )
    width, height = (
        _choose_side(preprocess.source.width, preprocess.width),
        _choose_side(preprocess.source.height, preprocess.height),
    )
    if preprocess.region is not None:
        width, height = preprocess.region.frame
    shape = (height, width) if 1 in preprocess.source.channels else (height, width, 3)
    generator = np.random.default_rng(0)
    paths = []
    for number in range(_DRAWN):
        texture = cv2.GaussianBlur(generator.normal(0, 40, shape).astype(np.float32), (0, 0), 1.5)
        path = folder / f"drawn{number:02}.jpg"
        path.write_bytes(cv2.imencode(".jpg", (128 + texture).clip(0, 255).astype(np.uint8))[1].tobytes())
        paths.append(path)
    return paths


def describe_images(paths: Sequence[Path], drawn: bool) -> str:
    """Return number and size of the images as text.

    Parameters
    ----------
    paths
        The image files, at least one.
    drawn
        Whether they are drawn.

    Returns
    -------
    str
        Text such as ``16 images of 512 x 512 pixels (such as a.png)``.
    """
    shapes = {read_image(path).shape[:2] for path in paths}
    heights, widths = [shape[0] for shape in shapes], [shape[1] for shape in shapes]
    size = f"{_span(widths)} x {_span(heights)} pixels"
    origin = "drawn; give your own images for figures of your line" if drawn else f"such as {paths[0].name}"
    return f"{len(paths)} image{'s' * (len(paths) != 1)} of {size} ({origin})"


def _choose_side(limits: tuple[int, int] | None, working: int) -> int:
    return 2 * working if limits is None else sum(limits) // 2


def _span(values: Sequence[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
