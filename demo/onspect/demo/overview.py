"""One picture of what a model does: parts in columns; image, reconstruction (if any) and verdict below each other."""

from __future__ import annotations

from pathlib import Path

from onspect.runtime.inspector import Inspection, Inspector
from onspect.runtime.layout import labelled_images
from onspect.runtime.pictures import Picture, draw_overlay, enlarge, side_by_side, to_bgr, write_png


def draw_overview(model: Path, parts: Path, picture: Path) -> None:
    """Write a PNG with the median part of each kind in the test split, by score; raises as `Inspector` does."""
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
    overlay = draw_overlay(inspection, inspector.threshold.map)
    assert overlay is not None
    scale = overlay.shape[1] // inspection.frame.shape[1]
    if not inspector.has_reconstruction:
        return enlarge(to_bgr(inspection.frame), scale), overlay
    prepared = inspector.prepare(inspection.frame)
    reconstruction = inspector.reconstruct(prepared[None])[0]
    return enlarge(to_bgr(inspection.frame), scale), enlarge(to_bgr(reconstruction), scale), overlay
