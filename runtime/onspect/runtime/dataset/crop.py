"""Where the part is in good pictures: the region of interest, and by what the part is found in each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.images.decode import Frame, read_image
from onspect.runtime.images.fit_alignment import fit_alignment
from onspect.runtime.images.outline import box_without_border, outline_part
from onspect.runtime.images.region import RegionFile
from onspect.runtime.model.schema import Alignment, Preprocess, RegionOfInterest


@dataclass(frozen=True)
class Crop:
    """What frames are cropped to, and how the part is found before that, None if it is always in the same place."""

    region: RegionOfInterest
    align: Alignment | None = None

    @classmethod
    def of(cls, preprocess: Preprocess) -> Crop | None:
        """Return the crop of `preprocess`, None if it judges whole frames."""
        return None if preprocess.region is None else cls(preprocess.region, preprocess.align)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the crop, in pixels of the frame."""
        return self.region.box[3], self.region.box[2]


def fit_crop(shapes: RegionFile, paths: Sequence[Path], *, white_level: int = 65535) -> Crop:
    """Place a region in good pictures and, with a reference, choose how the part is found in them.

    Parameters
    ----------
    shapes
        What ``--roi`` says. Its reference names the picture that it was drawn on; else that is the first good picture.
        A reference without a region takes the outline of the part, as `outline_part` finds it in that picture, or
        else the picture less a tenth on each side.
    paths
        Good pictures, at least one.
    white_level
        Of 16-bit pictures.

    Raises
    ------
    ChoiceError
        If the region does not fit into the picture.
    DatasetError
        If the picture cannot be read, or if the part cannot be found by the reference (`fit_alignment`).
    """
    reference = shapes.reference
    named = None if reference is None else reference.picture
    first = _read(named or paths[0])
    if reference is not None and not (shapes.rectangles or shapes.polygons):
        shapes = _add_outline(shapes, first, white_level)
    region = shapes.place(first.shape[1], first.shape[0])
    if reference is None:
        return Crop(region)
    align = fit_alignment(
        [partial(_read, path) for path in paths],
        reference.patch or region.box,
        picture=first,
        turn=reference.turn,
        scale=reference.scale,
        white_level=white_level,
    )
    return Crop(region, align)


def _add_outline(shapes: RegionFile, frame: Frame, white_level: int) -> RegionFile:
    outline = outline_part(frame, white_level)
    if outline is None:
        return dataclasses.replace(shapes, rectangles=(box_without_border(frame),))
    return dataclasses.replace(shapes, polygons=(outline,))


def _read(path: Path) -> Frame:
    try:
        return read_image(path)
    except ImageError as error:
        raise DatasetError(f"{str(path)!r} cannot be used: {error}; remove or replace it") from error
