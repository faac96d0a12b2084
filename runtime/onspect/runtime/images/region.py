"""The region of interest: the inspected pixels of a frame, as options, as a file and as a mask.

A region is the union of rectangles and polygons, without the ignored ones. A frame is cropped to the bounding box of
the region. Ignored places in the box become a mask, which is used in the model like that of ``--mask``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError
from onspect.runtime.model.schema import Polygon, Preprocess, Rectangle, RegionOfInterest
from onspect.runtime.records import to_float

_NAMES = {
    "": ("frame", "rectangles", "polygons", "mask", "ignore", "reference"),
    "ignore": ("rectangles", "polygons"),
    "reference": ("picture", "patch", "turn", "scale"),
}


@dataclass(frozen=True)
class Reference:
    """How a part is found."""

    picture: str | Path | None = None
    """The file on which region and patch were drawn; None if it is unknown."""
    patch: Rectangle | None = None
    """x, y, width and height of the patch that is searched for; None for the region's box."""
    turn: float = 180.0
    """Largest rotation in degrees, 0 to 180."""
    scale: float = 0.0
    """Largest change of size as a share, 0 to 0.2."""


@dataclass(frozen=True)
class RegionFile:
    """The shapes of a region in pixels of a frame; the content of ``--roi``."""

    rectangles: tuple[Rectangle, ...] = ()
    """Inspected rectangles: x, y, width and height. Without shapes everything is inspected."""
    polygons: tuple[Polygon, ...] = ()
    """Inspected polygons: corners x, y."""
    ignored_rectangles: tuple[Rectangle, ...] = ()
    """Rectangles that are not inspected."""
    ignored_polygons: tuple[Polygon, ...] = ()
    """Polygons that are not inspected."""
    frame: tuple[int, int] | None = None
    """Width and height of the picture on which the region was drawn; None if they are unknown."""
    mask: str | Path | None = None
    """A black-and-white picture as for ``--mask``; None for none."""
    reference: Reference | None = None
    """How the part is found; None if it is always in the same place."""

    def place(self, width: int, height: int) -> RegionOfInterest:
        """Return the region in frames of a size.

        Parameters
        ----------
        width
            Width of the frames in pixels.
        height
            Height of the frames in pixels.

        Returns
        -------
        RegionOfInterest
            The region.

        Raises
        ------
        ChoiceError
            If the region leaves such a frame, or was drawn on frames of another size.
        """
        if self.frame is not None and self.frame != (width, height):
            raise ChoiceError(
                f"the region was drawn on a picture of {self.frame[0]}x{self.frame[1]} pixels, and the good pictures "
                f"have {width}x{height}; draw it again with 'onspect roi'"
            )
        boxes = [*self.rectangles, *map(_bounds_of_polygon, self.polygons)]
        for box in boxes:
            _check_inside(box, width, height)
        box = _bounds(boxes) if boxes else (0, 0, width, height)
        return RegionOfInterest(
            box=box,
            frame=(width, height),
            rectangles=() if self.rectangles == (box,) and not self.polygons else self.rectangles,
            polygons=self.polygons,
            ignored_rectangles=self.ignored_rectangles,
            ignored_polygons=self.ignored_polygons,
        )


def parse_region(values: Sequence[str]) -> RegionFile:
    """Read the values of ``--roi``.

    Parameters
    ----------
    values
        Rectangles ``x,y,w,h``, or one file.

    Returns
    -------
    RegionFile
        The region.

    Raises
    ------
    ChoiceError
        If a value is neither, or a file is given with other values.
    """
    rectangles: list[Rectangle] = []
    for value in values:
        numbers = value.replace(" ", "").split(",")
        if not all(number.isascii() and number.isdigit() for number in numbers):
            if all(map(_is_number, numbers)):
                raise ChoiceError(f"--roi is {value!r}; x, y, width and height are whole pixels from 0")
            if len(values) > 1:
                raise ChoiceError(f"--roi is given {len(values)} times and {value!r} is a file; put all shapes into it")
            return read_region(Path(value))
        if len(numbers) != 4:
            raise ChoiceError(
                f"--roi {value!r} has {len(numbers)} numbers; give x,y,width,height such as 160,80,320,320"
            )
        x, y, width, height = map(int, numbers)
        rectangles.append(_check_rectangle((x, y, width, height), f"--roi {value!r}"))
    return RegionFile(rectangles=tuple(rectangles))


def read_region(path: Path) -> RegionFile:
    """Read a region file, as ``onspect roi`` writes it; file names in it are relative to its folder.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    RegionFile
        The region.

    Raises
    ------
    ChoiceError
        If it cannot be read, is not TOML, has an unknown key or value, or a polygon whose sides cross.
    """
    import tomllib  # imported here because most commands have no region

    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ChoiceError(
            f"cannot read the region's file {str(path)!r}: {describe_os_error(error)}; give x,y,width,height, or a "
            "file that 'onspect roi' wrote"
        ) from error
    except ValueError as error:
        raise ChoiceError(f"the region's file {str(path)!r} is not TOML ({error}); draw it again") from error
    return parse_region_file(content, path)


def parse_region_file(content: dict[str, Any], path: Path) -> RegionFile:
    """Read the content of a region file.

    Parameters
    ----------
    content
        The content.
    path
        Name of the file for messages; file names are relative to its folder.

    Returns
    -------
    RegionFile
        The region.

    Raises
    ------
    ChoiceError
        If a key or a value is unknown, or the sides of a polygon cross.
    """
    name = str(path)
    _check_keys(content, "", name)
    ignore, reference = content.get("ignore", {}), content.get("reference")
    for key, table in (("ignore", ignore), ("reference", reference)):
        if table is not None:
            _check_keys(table, key, name)
    frame = content.get("frame")
    return RegionFile(
        rectangles=_rectangles(content.get("rectangles", []), f"{name}: rectangles"),
        polygons=_polygons(content.get("polygons", []), f"{name}: polygons"),
        ignored_rectangles=_rectangles(ignore.get("rectangles", []), f"{name}: ignore.rectangles"),
        ignored_polygons=_polygons(ignore.get("polygons", []), f"{name}: ignore.polygons"),
        frame=None if frame is None else _pair(frame, f"{name}: frame"),
        mask=_file(content.get("mask"), path, f"{name}: mask"),
        reference=None if reference is None else _reference(reference, path),
    )


def format_region(region: RegionFile, folder: Path) -> str:
    """Return the content of a region file.

    Parameters
    ----------
    region
        The region.
    folder
        Folder of the file; files in it are named relative to it.

    Returns
    -------
    str
        TOML.
    """
    lines = ["# A region of interest, in pixels. A rectangle is [x, y, width, height], a polygon a list of [x, y]."]
    known = {"frame": region.frame, "rectangles": region.rectangles, "polygons": region.polygons}
    lines += [f"{key} = {_format(value)}" for key, value in known.items() if value]
    if region.mask is not None:
        lines.append(f"mask = {_format_file(region.mask, folder)}")
    ignored = [("rectangles", region.ignored_rectangles), ("polygons", region.ignored_polygons)]
    if any(shapes for _, shapes in ignored):
        lines += ["", "[ignore]", *(f"{key} = {_format(shapes)}" for key, shapes in ignored if shapes)]
    if region.reference is not None:
        reference = region.reference
        lines += ["", "[reference]"]
        if reference.picture is not None:
            lines.append(f"picture = {_format_file(reference.picture, folder)}")
        if reference.patch is not None:
            lines.append(f"patch = {_format(reference.patch)}")
        lines += [f"turn = {reference.turn:g}", f"scale = {reference.scale:g}"]
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=16)
def draw_region(region: RegionOfInterest) -> NDArray[np.uint8]:
    """Draw the inspected places of a region's box. The array is shared and read-only.

    Parameters
    ----------
    region
        The region.

    Returns
    -------
    NDArray[np.uint8]
        uint8 [height, width]: 255 is inspected, 0 is not.
    """
    x, y, width, height = region.box
    inspected = np.full((height, width), 0 if region.rectangles or region.polygons else 255, np.uint8)
    for value, rectangles, polygons in (
        (255, region.rectangles, region.polygons),
        (0, region.ignored_rectangles, region.ignored_polygons),
    ):
        for left, top, wide, high in rectangles:
            rows = slice(max(0, top - y), max(0, top - y + high))
            inspected[rows, max(0, left - x) : max(0, left - x + wide)] = value
        for polygon in polygons:
            cv2.fillPoly(inspected, [np.array(polygon, np.int32) - (x, y)], (value,))
    inspected.setflags(write=False)
    return inspected


def mask_of_region(preprocess: Preprocess) -> NDArray[np.bool_] | None:
    """Return the mask of a region. A pixel is inspected if more than half of it is, as in `read_mask`.

    Parameters
    ----------
    preprocess
        The model's preprocessing.

    Returns
    -------
    NDArray[np.bool_] | None
        bool [height, width] at the working size; None if the whole box is inspected.

    Raises
    ------
    ChoiceError
        If nothing is left to inspect.
    """
    if preprocess.region is None:
        return None
    inspected = draw_region(preprocess.region)
    if inspected.all():
        return None
    share = cv2.resize(inspected, (preprocess.width, preprocess.height), interpolation=cv2.INTER_AREA)
    mask: NDArray[np.bool_] = share > 127
    if not mask.any():
        raise ChoiceError(
            f"the region leaves nothing to inspect at the working size of {preprocess.width}x{preprocess.height} "
            "pixels; draw larger shapes, or fewer ignored areas"
        )
    return None if mask.all() else mask


def _bounds_of_polygon(polygon: Polygon) -> Rectangle:
    xs, ys = zip(*polygon, strict=True)
    return min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1  # both ends are inside


def _bounds(boxes: Sequence[Rectangle]) -> Rectangle:
    """Return the smallest rectangle around one or more rectangles."""
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return left, top, right - left, bottom - top


def _check_inside(box: Rectangle, width: int, height: int) -> None:
    x, y, wide, high = box
    if x + wide > width or y + high > height:
        raise ChoiceError(
            f"the region of {wide}x{high} pixels at {x},{y} does not fit into the pictures of {width}x{height} pixels; "
            "give a region inside them"
        )


def _check_rectangle(rectangle: Rectangle, where: str) -> Rectangle:
    if min(rectangle[2:]) < 1:
        raise ChoiceError(f"{where} is {rectangle[2]}x{rectangle[3]} pixels; width and height are at least 1")
    return rectangle


def _check_keys(table: object, name: str, path: str) -> None:
    if not isinstance(table, dict):
        raise ChoiceError(f"{path}: {name} is {table!r}; it is a table, [{name}]")
    unknown = sorted(set(table) - set(_NAMES[name]))
    if unknown:
        where = f"[{name}]" if name else "the file"
        raise ChoiceError(f"{path}: {where} has the unknown key {unknown[0]!r}; its keys are {', '.join(_NAMES[name])}")


def _rectangles(value: object, where: str) -> tuple[Rectangle, ...]:
    if not isinstance(value, list):
        raise ChoiceError(f"{where} is {value!r}; give a list of [x, y, width, height]")
    return tuple(_rectangle(item, where) for item in value)


def _rectangle(value: object, where: str) -> Rectangle:
    if not (isinstance(value, list) and len(value) == 4 and all(map(_is_pixel, value))):
        raise ChoiceError(f"{where} has {value!r}; give [x, y, width, height] in whole pixels from 0")
    x, y, width, height = value
    return _check_rectangle((x, y, width, height), where)


def _polygons(value: object, where: str) -> tuple[Polygon, ...]:
    if not isinstance(value, list):
        raise ChoiceError(f"{where} is {value!r}; give a list of polygons, each a list of [x, y]")
    return tuple(_polygon(item, where) for item in value)


def _polygon(value: object, where: str) -> Polygon:
    if not (isinstance(value, list) and len(value) >= 3):
        raise ChoiceError(f"{where} has {value!r}; a polygon has at least three corners [x, y]")
    corners = tuple(_pair(corner, where) for corner in value)
    if _are_on_one_line(corners):
        raise ChoiceError(f"{where} has {value!r}, whose corners are on one line; draw a polygon with an area")
    sides = list(zip(corners, (*corners[1:], corners[0]), strict=True))
    for number, one in enumerate(sides):
        for other in sides[number + 1 :]:
            if _cross(one, other):
                raise ChoiceError(
                    f"{where}: the sides {list(one[0])}-{list(one[1])} and {list(other[0])}-{list(other[1])} cross, so "
                    "the inside is not clear; draw two polygons"
                )
    return corners


def _are_on_one_line(corners: Polygon) -> bool:
    (x, y), *others = corners
    moved = [(across - x, down - y) for across, down in others]
    return all(a * d == b * c for a, b in moved for c, d in moved)


def _cross(one: Polygon, other: Polygon) -> bool:
    """Return whether two sides cross inside both; sides that only touch do not."""
    (a, b), (c, d) = one, other

    def turn(p: tuple[int, int], q: tuple[int, int], r: tuple[int, int]) -> int:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


def _pair(value: object, where: str) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_pixel, value))):
        raise ChoiceError(f"{where} has {value!r}; give two whole numbers from 0")
    return value[0], value[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_pixel(value: object) -> bool:
    return type(value) is int and 0 <= value <= 1_000_000


def _file(value: object, path: Path, where: str) -> Path | None:
    if value is not None and not (isinstance(value, str) and value):
        raise ChoiceError(f"{where} is {value!r}; give a file's name")
    return None if value is None else path.parent / str(value)


def _reference(table: dict[str, Any], path: Path) -> Reference:
    patch, name = table.get("patch"), str(path)
    return check_reference(
        Reference(
            picture=_file(table.get("picture"), path, f"{name}: reference.picture"),
            patch=None if patch is None else _rectangle(patch, f"{name}: reference.patch"),
            turn=_number(table.get("turn", 180.0), f"{name}: reference.turn"),
            scale=_number(table.get("scale", 0.0), f"{name}: reference.scale"),
        )
    )


def check_reference(reference: Reference) -> Reference:
    """Check the numbers of a reference.

    Parameters
    ----------
    reference
        The reference.

    Returns
    -------
    Reference
        The reference.

    Raises
    ------
    ChoiceError
        If a number is out of range.
    """
    if not 0.0 <= reference.turn <= 180.0:
        raise ChoiceError(f"the largest rotation is {reference.turn:g} degrees; give 0 to 180")
    if not 0.0 <= reference.scale <= 0.2:
        raise ChoiceError(f"the largest change of size is {reference.scale:g}; give a share from 0 to 0.2")
    return reference


def _number(value: object, where: str) -> float:
    number = to_float(value)
    if number is None:
        raise ChoiceError(f"{where} is {value!r}; give a number")
    return number


def _format(value: Any) -> str:
    return json.dumps(value)


def _format_file(path: str | Path, folder: Path) -> str:
    absolute, root = Path(path).absolute(), folder.absolute()
    name = absolute.relative_to(root) if absolute.is_relative_to(root) else absolute
    return json.dumps(name.as_posix(), ensure_ascii=False)
