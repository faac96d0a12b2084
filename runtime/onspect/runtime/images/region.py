"""The region of interest: which pixels of a frame are inspected, as options and as a file; and the crop to it.

A region is the union of rectangles and polygons, less the ignored ones. A frame is cropped to the region's bounding
box. What is inside the box and not inspected becomes a mask, which goes into the graph as that of ``--mask`` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.images.decode import Frame
from onspect.runtime.model.schema import Polygon, Preprocess, Rectangle, RegionOfInterest

_GRID = 24  # places along each side at which it is asked whether the region lies inside the frame
_MOST_OUTSIDE = 0.01  # share of the inspected places that may lie outside the frame: rounding, and no part
_NAMES = {
    "": ("frame", "rectangles", "polygons", "mask", "ignore", "reference"),
    "ignore": ("rectangles", "polygons"),
    "reference": ("picture", "patch", "turn", "scale"),
}


@dataclass(frozen=True)
class Reference:
    """What a part is found by. picture: the file that region and patch were drawn on. patch: the place on it that is
    searched for, None for the region's box. turn: largest rotation, in degrees. scale: largest change of size, a share.
    """

    picture: Path | None = None
    patch: Rectangle | None = None
    turn: float = 180.0
    scale: float = 0.0


@dataclass(frozen=True)
class RegionFile:
    """What ``--roi`` says: the shapes of a region, in pixels of a frame.

    rectangles, polygons: inspected; everything if there are none. ignored_rectangles, ignored_polygons: not inspected.
    frame: width and height of the picture that it was drawn on, None if that is not known. mask: a black-and-white
    picture as for ``--mask``. reference: by what the part is found, None if it is always in the same place.
    """

    rectangles: tuple[Rectangle, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    ignored_rectangles: tuple[Rectangle, ...] = ()
    ignored_polygons: tuple[Polygon, ...] = ()
    frame: tuple[int, int] | None = None
    mask: Path | None = None
    reference: Reference | None = None

    def place(self, width: int, height: int) -> RegionOfInterest:
        """Return the region in frames of width x height pixels.

        Raises ChoiceError if the region leaves such a frame, or was drawn on frames of another size.
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
    """Return what the values of ``--roi`` say: rectangles ``x,y,w,h``, or one file that `read_region` reads.

    Raises ChoiceError if a value is neither, or if a file goes with other values.
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
    """Read a region's file, as ``onspect roi`` writes it; file names in it are relative to its folder.

    Raises ChoiceError if it cannot be read, is not TOML, has a key or a value that is not known, or a polygon whose
    sides cross each other.
    """
    import tomllib  # here, for files without a region

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
    """Return what a region's file says; path is its name in messages, and its folder that of names in it.

    Raises ChoiceError as `read_region` does.
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
    """Return a region's file; files that lie in its folder are named relative to it."""
    lines = ["# A region of interest, in pixels. A rectangle is [x, y, width, height], a polygon a list of [x, y]."]
    lines += [f"{key} = {value}" for key, value in _list_entries(region, folder)]
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
    """Return the inspected places of a region's box, uint8 [height, width]: 255 is inspected, 0 is not.

    The array is shared and read-only.
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
    """Return the region's mask, bool [height, width] at the working size; None if all of the box is inspected.

    A place is inspected if more than half of it is, as in `read_mask`. Raises ChoiceError if nothing is left.
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


@dataclass(frozen=True)
class Pose:
    """Where a part was found.

    x, y: the middle of the reference patch in the frame, in pixels. angle: by how many degrees the part is turned from
    the reference, counter-clockwise, above -180 and up to 180. scale: its size relative to the reference. confidence:
    the correlation with the reference, -1 to 1.
    """

    x: float
    y: float
    angle: float
    scale: float = 1.0
    confidence: float = 1.0


@dataclass(frozen=True)
class Placement:
    """Where a model's input lies in its frame.

    width, height: of the crop, in pixels of the frame. matrix: from a point (x, y, 1) of the crop to one of the frame,
    its two rows one after the other. frame: width and height of the frame. pose: the part's, None without an alignment.
    """

    width: int
    height: int
    matrix: tuple[float, float, float, float, float, float]
    frame: tuple[int, int]
    pose: Pose | None = None

    @property
    def rows(self) -> NDArray[np.float64]:
        """The matrix, float64 [2, 3]."""
        return np.array(self.matrix, np.float64).reshape(2, 3)

    @property
    def is_upright(self) -> bool:
        """Whether the crop is a plain rectangle of the frame."""
        return self.pose is None

    def cut(self, frame: Frame, size: tuple[int, int] | None = None) -> Frame:
        """Return the crop of a frame: a view of its own pixels if it is upright, else a copy that is resampled once.

        size: width and height that the crop is wanted at; by default those in the frame. A copy has whole multiples of
        them, at least about as many pixels as the frame shows there, so that averaging areas shrinks it to the size.
        """
        if self.is_upright:
            left, top = int(self.matrix[2]), int(self.matrix[5])
            return frame[top : top + self.height, left : left + self.width]
        sides = self.width, self.height
        width, height = (
            wanted * max(1, math.ceil(side / wanted - 0.125)) for side, wanted in zip(sides, size or sides, strict=True)
        )
        finer = self.rows @ np.diag([self.width / width, self.height / height, 1.0])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP  # bilinear would blur fine defects
        return cv2.warpAffine(frame, centred(finer), (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def box_in_frame(self, x: int, y: int, width: int, height: int) -> Rectangle:
        """Return the bounding box, in the frame, of a box of the crop; it is cut at the frame's edges."""
        corners = [(x, y), (x + width, y), (x, y + height), (x + width, y + height)]
        points = self.points_in_frame(np.array(corners, np.float64))
        (left, top), (right, bottom) = np.floor(points.min(axis=0) + 1e-6), np.ceil(points.max(axis=0) - 1e-6)
        across, down = self.frame
        left, top = min(max(0, int(left)), across - 1), min(max(0, int(top)), down - 1)
        return left, top, max(1, min(across, int(right)) - left), max(1, min(down, int(bottom)) - top)

    def points_in_frame(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points [n, 2] of the crop as points of the frame."""
        rows = self.rows
        return np.asarray(points @ rows[:, :2].T + rows[:, 2])

    @property
    def area_factor(self) -> float:
        """Pixels of the frame that one pixel of the crop covers."""
        rows = self.rows
        return float(abs(np.linalg.det(rows[:, :2])))

    def map_in_frame(self, plane: NDArray[Any], size: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return a map [h, w] of the crop, at any size, as one of the whole frame; it is 0 outside the crop.

        size: width and height of the result, those of the frame by default.
        """
        across, down = self.frame
        width, height = size or self.frame
        rows, columns = plane.shape[:2]
        crop = np.diag([self.width / columns, self.height / rows, 1.0])
        view = np.diag([width / across, height / down, 1.0])
        whole = view @ np.vstack([self.rows, (0.0, 0.0, 1.0)]) @ crop
        flags = cv2.INTER_LINEAR
        return cv2.warpAffine(plane, centred(whole[:2]), (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT)

    def outline(self) -> NDArray[np.float64]:
        """Return the crop's four corners in the frame, float64 [4, 2], in order around it."""
        w, h = self.width, self.height
        return self.points_in_frame(np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float64))


def place_region(region: RegionOfInterest, width: int, height: int) -> Placement:
    """Return where a region lies in a frame of width x height pixels, if parts are always in the same place.

    Raises ImageError if it does not fit into the frame.
    """
    x, y, wide, high = region.box
    if x + wide > width or y + high > height:
        raise ImageError(
            f"the region of {wide}x{high} pixels at {x},{y} does not fit into the frame of {width}x{height} pixels; "
            f"it was drawn on {region.frame[0]}x{region.frame[1]}: use that camera mode, or teach with another --roi",
            code="size",
        )
    return Placement(wide, high, (1.0, 0.0, float(x), 0.0, 1.0, float(y)), (width, height))


def place_at_pose(region: RegionOfInterest, patch: Rectangle, pose: Pose, frame: tuple[int, int]) -> Placement:
    """Return where a region lies in a frame (width, height) in which the reference patch was found.

    Raises ImageError if the frame's edge cuts the region: more than 1% of the inspected places lie outside the frame.
    """
    x, y, wide, high = region.box
    angle = np.deg2rad(pose.angle)
    cos, sin = pose.scale * np.cos(angle), pose.scale * np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])  # y points down, so this turns counter-clockwise
    middle = np.array([patch[0] + patch[2] / 2.0 - x, patch[1] + patch[3] / 2.0 - y])
    shift = np.array([pose.x, pose.y]) - turn @ middle
    matrix = (cos, sin, float(shift[0]), -sin, cos, float(shift[1]))
    placement = Placement(wide, high, tuple(map(float, matrix)), frame, pose)  # type: ignore[arg-type]  # six floats
    points = placement.points_in_frame(_inspected_grid(region))
    outside = float(np.mean(((points < 0.0) | (points > frame)).any(axis=1)))
    if outside > _MOST_OUTSIDE:
        raise ImageError(
            f"the part is cut by the edge of the frame: {outside:.0%} of its region is outside "
            f"(found at {pose.x:.0f},{pose.y:.0f}, turned by {pose.angle:.0f} degrees)",
            code="position",
        )
    return placement


@lru_cache(maxsize=16)
def _inspected_grid(region: RegionOfInterest) -> NDArray[np.float64]:
    """Return points spread over a region's inspected places, float64 [n, 2], in pixels of the crop."""
    inspected = draw_region(region)
    height, width = inspected.shape
    down, across = np.linspace(0, height, _GRID), np.linspace(0, width, _GRID)
    points = np.array([(x, y) for y in down for x in across])
    columns, rows = (np.minimum(points[:, axis].astype(int), side - 1) for axis, side in ((0, width), (1, height)))
    inside = points[inspected[rows, columns] > 0]
    return inside if len(inside) else points  # tiny shapes fall between the points


def centred(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same matrix, float64 [2, 3], between pixel numbers, which count from the middle of the first pixel."""
    between = matrix.copy()
    between[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return between


def _bounds_of_polygon(polygon: Polygon) -> Rectangle:
    xs, ys = zip(*polygon, strict=True)
    return min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1  # both ends are inside


def _bounds(boxes: Sequence[Rectangle]) -> Rectangle:
    """Return the least rectangle around rectangles, at least one."""
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
        raise ChoiceError(f"{path}: {where} has the key {unknown[0]!r}; it has {', '.join(_NAMES[name])}")


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
    """Return a reference whose numbers are in their ranges; raises ChoiceError if one is not."""
    if not 0.0 <= reference.turn <= 180.0:
        raise ChoiceError(f"the largest rotation is {reference.turn:g} degrees; give 0 to 180")
    if not 0.0 <= reference.scale <= 0.2:
        raise ChoiceError(f"the largest change of size is {reference.scale:g}; give a share from 0 to 0.2")
    return reference


def _number(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ChoiceError(f"{where} is {value!r}; give a number")
    return float(value)


def _list_entries(region: RegionFile, folder: Path) -> list[tuple[str, str]]:
    entries = []
    if region.frame is not None:
        entries.append(("frame", _format(region.frame)))
    for key, shapes in (("rectangles", region.rectangles), ("polygons", region.polygons)):
        if shapes:
            entries.append((key, _format(shapes)))
    if region.mask is not None:
        entries.append(("mask", _format_file(region.mask, folder)))
    return entries


def _format(value: Any) -> str:
    return json.dumps(value)


def _format_file(path: Path, folder: Path) -> str:
    absolute, root = path.absolute(), folder.absolute()
    name = absolute.relative_to(root) if absolute.is_relative_to(root) else absolute
    return json.dumps(name.as_posix(), ensure_ascii=False)
