"""The region of interest in good pictures, and the alignment that finds the part in each of them."""

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
    """The region that frames are cropped to, and the alignment before it."""

    region: RegionOfInterest
    """Region of a frame."""

    align: Alignment | None = None
    """How the part is found before the crop; None if its place is fixed."""

    @classmethod
    def of(cls, preprocess: Preprocess) -> Crop | None:
        """Return the crop of a model.

        Parameters
        ----------
        preprocess
            How the model prepares frames.

        Returns
        -------
        Crop or None
            The crop, None if the model judges whole frames.
        """
        return None if preprocess.region is None else cls(preprocess.region, preprocess.align)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the crop, in pixels of the frame."""
        return self.region.box[3], self.region.box[2]


def fit_crop(shapes: RegionFile, paths: Sequence[Path], *, white_level: int = 65535) -> Crop:
    """Place a region in good pictures. With a reference, choose how the part is found in them.

    Parameters
    ----------
    shapes
        The region of ``--roi``. Its reference names the picture that it was drawn on; by default that is the
        first good picture. A reference without a region uses the outline of the part (`outline_part`). Without
        an outline it uses the picture less a tenth on each side.
    paths
        Good pictures, at least one.
    white_level
        White level of 16-bit pictures.

    Returns
    -------
    Crop
        The region, with an alignment if there is a reference.

    Raises
    ------
    ChoiceError
        If the region does not fit into the picture.
    DatasetError
        If the picture cannot be read, or if the part cannot be found by the reference (`fit_alignment`).
    """
    reference = shapes.reference
    named = None if reference is None else reference.picture
    first = _read(Path(named or paths[0]))
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
