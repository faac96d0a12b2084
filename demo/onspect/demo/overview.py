"""One picture of a model's results: a column for each kind of part, with image, reconstruction (if any) and verdict."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from onspect.runtime.dataset.folder import labelled_images
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.inspection.visualization import Picture, draw_overlay, enlarge, side_by_side, to_bgr, write_png


def draw_overview(model: Path, parts: Path, picture: Path) -> None:
    """Write a PNG with the part of median score of each kind in the test split.

    Parameters
    ----------
    model
        The model file.
    parts
        The dataset folder.
    picture
        The file to write.

    Raises
    ------
    ModelFileError
        If the model file cannot be used.
    DatasetError
        If the folder has no test images.
    OutputError
        If the picture cannot be written.
    """
    inspector = Inspector(model)
    images = labelled_images(parts, "test")
    inspections = list(inspector.examine_many(image.path for image in images))
    kinds = sorted({image.kind for image in images}, key=lambda kind: (kind != "good", kind))
    columns = []
    for kind in kinds:
        judged = [
            inspection
            for image, inspection in zip(images, inspections, strict=True)
            if image.kind == kind and inspection.verdict.score is not None
        ]
        judged.sort(key=lambda inspection: inspection.verdict.score or 0.0)
        columns.append(_draw_column(inspector, judged[len(judged) // 2]))
    write_png(picture, side_by_side(list(zip(*columns, strict=True))))


def _draw_column(inspector: Inspector, inspection: Inspection) -> tuple[Picture, ...]:
    assert inspection.frame is not None
    overlay = draw_overlay(inspection)
    assert overlay is not None
    scale = overlay.shape[1] // inspection.frame.shape[1]
    image = enlarge(to_bgr(inspection.frame), scale)
    if not inspector.reconstructs:
        return image, overlay
    reconstruction = inspector.reconstruct(inspector.prepare(inspection.frame)[None])[0]
    resized = cv2.resize(to_bgr(reconstruction), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
    return image, np.asarray(resized, np.uint8), overlay
