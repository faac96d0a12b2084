"""Gallery of a report: images with the clearest verdicts, correct and wrong."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.calibration.figures import Evaluation
from onspect.calibration.masks import read_mask
from onspect.calibration.scores import ScoredImage
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import decide
from onspect.runtime.inspection.visualization import Picture, heat_map, mark_regions, scale_region, to_bgr
from onspect.runtime.model.schema import Threshold

MOST = 6
"""Highest number of images of each group."""

_LONGEST_SIDE = 480
_JPEG_QUALITY = 85
_MASK_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class Example:
    """One image of the gallery."""

    name: str
    """Name of the file."""
    kind: str
    """Label: ``good`` or the kind of defect."""
    score: float
    """Score of the image."""
    pictures: dict[str, str]
    """Pictures as data URIs by column: ``image``, ``reconstruction`` if the model has one, ``marks`` and ``error``."""
    masked: bool
    """Whether the pictures show the outline of a mask."""


@dataclass(frozen=True)
class Gallery:
    """Examples of correct and of wrong verdicts."""

    hits: tuple[Example, ...]
    """Rejected defective images with the highest scores."""
    misses: tuple[Example, ...]
    """Passed defective images with the lowest scores."""
    false_alarms: tuple[Example, ...]
    """Rejected good images with the highest scores."""
    columns: tuple[str, ...]
    """Names of the pictures of each example, in order."""


def draw_gallery(evaluation: Evaluation, inspector: Inspector) -> Gallery:
    """Read the images of the gallery again and draw them.

    Parameters
    ----------
    evaluation
        The evaluation.
    inspector
        The model, ready to run.

    Returns
    -------
    Gallery
        The examples with their pictures.

    Raises
    ------
    DatasetError
        If an image can no longer be read.
    """
    chosen = choose_examples(evaluation.results, evaluation.threshold)
    hits, misses, false_alarms = (tuple(_draw(result, inspector) for result in results) for results in chosen)
    columns = ("image", *(["reconstruction"] if inspector.reconstructs else []), "marks", "error")
    return Gallery(hits, misses, false_alarms, columns)


def choose_examples(
    results: Sequence[ScoredImage], threshold: Threshold | None
) -> tuple[list[ScoredImage], list[ScoredImage], list[ScoredImage]]:
    """Return the images of the gallery, farthest from the threshold first.

    Without a threshold: the defective images with the highest scores, those with the lowest, and the good ones with the
    highest.

    Parameters
    ----------
    results
        Scored images.
    threshold
        The file's threshold, or None.

    Returns
    -------
    tuple[list[ScoredImage], list[ScoredImage], list[ScoredImage]]
        Hits, misses and false alarms, at most `MOST` of each.
    """
    verdicts = {id(result): None if threshold is None else decide(result.score, threshold) for result in results}
    rejected = [result for result in results if verdicts[id(result)] in ("ng", None)]
    passed = [result for result in results if verdicts[id(result)] in ("ok", None)]
    rejected.sort(key=lambda result: -result.score)
    passed.sort(key=lambda result: result.score)
    hits = [result for result in rejected if result.image.defective]
    false_alarms = [result for result in rejected if not result.image.defective]
    misses = [result for result in passed if result.image.defective]
    return hits[:MOST], misses[:MOST], false_alarms[:MOST]


def _draw(result: ScoredImage, inspector: Inspector) -> Example:
    prepared = inspector.prepare_frame(inspector.read(result.image.path))
    frame, image, placement = prepared.frame, prepared.image, prepared.placement
    scored = inspector.infer_frames([prepared])
    if frame is None or image is None or scored is None:
        raise DatasetError(
            f"{str(result.image.path)!r} has changed since it was scored: {prepared.error}; evaluate again"
        )
    height, width = frame.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    threshold, white_level = inspector.info.threshold, inspector.info.preprocess.white_level
    error_map = scored.error_map[0]
    if placement is not None:
        error_map = placement.map_in_frame(error_map, size)
    heat = _resize(heat_map(error_map, float(error_map.max()) / 2.0 if threshold is None else threshold.map), size)
    plain = _resize(to_bgr(frame, white_level), size)
    marked = plain.copy()
    if threshold is not None:
        found = inspector.judge([prepared], scored)[0].verdict.regions
        mark_regions(marked, [scale_region(region, scale) for region in found], error_map, threshold.map)
    mask = _read_mask(result, height, width)
    if mask is not None:
        _outline(heat, mask)
        _outline(marked, mask)
    pictures = {"image": plain}
    if inspector.reconstructs:
        pictures["reconstruction"] = _resize(to_bgr(inspector.reconstruct(image[np.newaxis])[0]), size)
    shown = {name: _embed(picture) for name, picture in (pictures | {"marks": marked, "error": heat}).items()}
    return Example(result.image.path.name, result.image.kind, result.score, shown, mask is not None)


def _read_mask(result: ScoredImage, height: int, width: int) -> NDArray[np.bool_] | None:
    if result.image.mask is None:
        return None
    try:
        mask = read_mask(result.image, height, width)
    except ImageError:
        return None  # the evaluation counts this mask, and the report names it
    return mask if mask.any() else None


def _outline(heat: Picture, mask: NDArray[np.bool_]) -> None:
    height, width = heat.shape[:2]
    resized = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours((resized > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(heat, contours, -1, _MASK_COLOUR, 1)


def _resize(picture: Picture, size: tuple[int, int]) -> Picture:
    shrinks = picture.shape[1] >= size[0] and picture.shape[0] >= size[1]
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def _embed(picture: Picture) -> str:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
