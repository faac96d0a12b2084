"""Pictures for people: overlays on the source image, heat maps, and rows of images side by side. All are BGR uint8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import write_atomically
from onspect.runtime.errors import ImageError, OutputError
from onspect.runtime.images.decode import Frame
from onspect.runtime.images.quality import find_white_level
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict

Picture = NDArray[np.uint8]

_COLOURS = {"ok": (80, 160, 40), "ng": (40, 40, 220), "review": (0, 165, 255), "fault": (200, 60, 160)}
_BOXES = {"ng": (60, 110, 255), "review": (80, 200, 250)}  # also distinct for people who are colour-blind
_EDGE = (20, 20, 20)  # of lines, so that they are visible on bright and coloured parts
_SMALLEST_BOX = 12  # pixels
_JPEG_QUALITY = 92
_OUTLINE = (255, 211, 143)  # of the region, and of the pose's cross
_WEIGHTS = ((np.arange(256, dtype=np.float32) / 255.0 - 0.25) / 0.5).clip(
    0.0, 0.6
)  # of the heat, by the relative error
_SMALLEST_SIDE = 256  # smaller images are enlarged so that boxes and words can be read,
_LARGEST_SIDE = 4096  # but not beyond this: a line camera's 1 x 20000 pixels would take gigabytes


def to_bgr(frame: Frame, white_level: int | None = None) -> Picture:
    """Convert a frame to 8-bit colour.

    Parameters
    ----------
    frame
        [height, width], [height, width, 1] or [height, width, 3]; uint8 or uint16.
    white_level
        Value of a uint16 frame that becomes 255; None for that of `find_white_level`.

    Returns
    -------
    Picture
        uint8 [height, width, 3], BGR.
    """
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=255.0 / (white_level or find_white_level(frame)))
    if frame.ndim == 3 and frame.shape[2] == 3:
        return np.asarray(frame, np.uint8)
    return np.asarray(cv2.cvtColor(frame.reshape(frame.shape[:2]), cv2.COLOR_GRAY2BGR), np.uint8)


def heat_map(error_map: NDArray[Any], threshold: float) -> Picture:
    """Colour an error map: black at 0, orange at the threshold, white from twice the threshold on.

    Parameters
    ----------
    error_map
        [h, w], 0 or more.
    threshold
        The cut of the map.

    Returns
    -------
    Picture
        uint8 [h, w, 3], BGR.
    """
    return np.asarray(cv2.applyColorMap(_relative(error_map, threshold), cv2.COLORMAP_INFERNO), np.uint8)


def draw_overlay(
    inspection: Inspection, *, heat: bool = False, beside: bool = False, legend: bool = False
) -> Picture | None:
    """Draw the verdict on the source image, with an outline and a box around each region.

    A part that passed is drawn without marks. The outline of a crop and the pose are drawn for every part.

    Parameters
    ----------
    inspection
        The verdict with its frame and error map.
    heat
        Colour the error map over the image too, whatever the verdict.
    beside
        Put the image without marks to the left.
    legend
        Explain the marks below the image.

    Returns
    -------
    Picture or None
        uint8 [height, width, 3], BGR, enlarged if the image is small. None if there is no image.
    """
    if not _is_drawable(inspection.frame):
        return None
    verdict = inspection.verdict
    picture = to_bgr(inspection.frame, inspection.white_level)
    sides = picture.shape[:2]
    scale = max(1, min(-(-_SMALLEST_SIDE // min(sides)), _LARGEST_SIDE // max(sides)))
    plain = enlarge(picture, scale)
    marked = plain.copy() if beside else plain
    if heat and inspection.error_map is not None:
        marked = _blend_heat(marked, inspection.error_map, inspection)
    _draw_placement(marked, inspection, scale, max(1, round(min(marked.shape[:2]) / 256)))
    if verdict.verdict != "ok":
        regions = [scale_region(region, scale) for region in verdict.regions]
        colour = _BOXES["review" if verdict.verdict == "review" else "ng"]
        mark_regions(marked, regions, _find_map(inspection, marked), inspection.map_threshold, colour=colour)
    drawn = side_by_side([[plain, marked]]) if beside else marked
    pieces = [_banner(verdict, *drawn.shape[:2]), drawn]
    return np.vstack([*pieces, _legend(inspection, heat, *drawn.shape[:2])] if legend else pieces)


def _find_map(inspection: Inspection, picture: Picture) -> NDArray[np.float32] | None:
    """Return the error map in the coordinates of the whole picture, at any size; None if there is no map."""
    if inspection.error_map is None or inspection.placement is None:
        return inspection.error_map
    height, width = picture.shape[:2]
    return inspection.placement.map_in_frame(inspection.error_map, (width, height))


def mark_regions(
    picture: Picture,
    regions: Sequence[Region],
    error_map: NDArray[Any] | None,
    threshold: float,
    *,
    colour: tuple[int, int, int] = _BOXES["ng"],
) -> None:
    """Draw a thin box around each region, and an outline around its core.

    The core is the part of a region whose error is nearer to the peak than to the threshold. Both lines are drawn
    outside and leave the content visible. A box is at least 12 pixels wide and high. Both lines have a dark edge,
    so that they are visible on any background.

    Parameters
    ----------
    picture
        uint8 [height, width, 3], BGR; it is changed.
    regions
        Regions in pixels of the picture.
    error_map
        [h, w] at any size. None draws boxes only.
    threshold
        The cut of the map.
    colour
        Colour of the lines, BGR.
    """
    height, width = picture.shape[:2]
    thick = max(1, round(min(height, width) / 200))
    lines = [] if error_map is None else [_outline_regions(regions, error_map, threshold, width, height, 2 * thick)]
    for edge, tone in ((2 * thick + thick % 2, _EDGE), (thick, colour)):
        for contours in lines:
            cv2.drawContours(picture, contours, -1, tone, edge)
        for region in regions:
            left, right = _place_side(region.x, region.width, width, thick)
            top, bottom = _place_side(region.y, region.height, height, thick)
            cv2.rectangle(picture, (left, top), (right, bottom), tone, edge)


def _outline_regions(
    regions: Sequence[Region], error_map: NDArray[Any], threshold: float, width: int, height: int, apart: int
) -> list[Any]:
    """Return contours around the core of each region, `apart` pixels outside it."""
    found: list[Any] = []
    full = cv2.resize(np.asarray(error_map, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    for region in regions:
        x, y = max(0, region.x), max(0, region.y)
        high = full[y : region.y + region.height, x : region.x + region.width] >= (threshold + region.peak) / 2.0
        if not high.any():
            continue  # the map is finer than the picture; the box is enough
        low = np.pad((~high).astype(np.uint8), apart + 1, constant_values=1)
        grown = (cv2.distanceTransform(low, cv2.DIST_L2, 3) <= apart).astype(np.uint8)  # much faster than dilating
        offset = (x - apart - 1, y - apart - 1)
        contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=offset)
        found += contours
    return found


def _place_side(start: int, length: int, whole: int, thick: int) -> tuple[int, int]:
    """Return where a box begins and ends along one side: outside the region, and at least `_SMALLEST_BOX` long."""
    first, last = start - 4 * thick, start + length - 1 + 4 * thick
    missing = max(0, _SMALLEST_BOX - 1 - (last - first))
    first, last = first - missing // 2, last + missing - missing // 2
    return max(0, first), min(whole - 1, last)


def scale_region(region: Region, scale: float) -> Region:
    """Scale a region to a picture of another size.

    Parameters
    ----------
    region
        The region.
    scale
        Factor of the picture's size, above 0.

    Returns
    -------
    Region
        The region in pixels of the scaled picture.
    """
    x, y = math.floor(region.x * scale), math.floor(region.y * scale)
    right, bottom = math.ceil((region.x + region.width) * scale), math.ceil((region.y + region.height) * scale)
    area = max(1, round(region.area * scale * scale))
    return Region(x, y, right - x, bottom - y, region.peak, area)


def draw_boxes(verdict: Verdict, frame: Frame, white_level: int | None = None) -> Picture:
    """Draw a verdict and a box around each of its regions, without an error map.

    Parameters
    ----------
    verdict
        The verdict.
    frame
        The frame, [height, width] or [height, width, 3], uint8 or uint16.
    white_level
        Value of a uint16 frame that becomes 255; None for that of `find_white_level`.

    Returns
    -------
    Picture
        uint8 [height, width, 3], BGR.

    Raises
    ------
    ImageError
        If the frame has another shape or type.
    """
    level = white_level or (find_white_level(frame) if _is_drawable(frame) else 255)
    picture = draw_overlay(Inspection(verdict, frame, None, np.inf, level))
    if picture is None:
        raise ImageError("the frame cannot be drawn: give HxW or HxWx3, uint8 or uint16")
    return picture


def draw_view(inspection: Inspection, *, longest: int, heat: bool) -> Picture | None:
    """Draw the source image for a screen, with or without heat and boxes.

    The picture is scaled to a fixed size, so that boxes stay thin and drawing stays fast.

    Parameters
    ----------
    inspection
        The verdict with its frame and error map.
    longest
        Longest side of the picture in pixels.
    heat
        Whether to draw heat and boxes.

    Returns
    -------
    Picture or None
        uint8 [height, width, 3], BGR. None if there is no image.
    """
    if not _is_drawable(inspection.frame):
        return None
    height, width = inspection.frame.shape[:2]
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
    picture = to_bgr(cv2.resize(inspection.frame, size, interpolation=method), inspection.white_level)
    if not heat:
        return picture
    if inspection.error_map is not None:
        picture = _blend_heat(picture, inspection.error_map, inspection)
    verdict = inspection.verdict
    thickness = max(1, round(longest / 240))
    _draw_placement(picture, inspection, scale, max(1, thickness // 2))
    colour = _BOXES["review" if verdict.verdict == "review" else "ng"]
    for region in verdict.regions:
        corner = (round(region.x * scale), round(region.y * scale))
        opposite = (round((region.x + region.width) * scale) - 1, round((region.y + region.height) * scale) - 1)
        cv2.rectangle(picture, corner, opposite, colour, thickness)
    return picture


def enlarge(picture: Picture, scale: int) -> Picture:
    """Repeat every pixel of a picture in both directions.

    Parameters
    ----------
    picture
        uint8 [height, width, 3].
    scale
        Number of repetitions, from 1.

    Returns
    -------
    Picture
        uint8 [height * scale, width * scale, 3].
    """
    return np.repeat(np.repeat(picture, scale, axis=0), scale, axis=1)


def side_by_side(rows: Sequence[Sequence[Picture]], gap: int = 4) -> Picture:
    """Arrange pictures of equal size in rows, on white.

    Parameters
    ----------
    rows
        The pictures of each row, uint8 [height, width, 3].
    gap
        Pixels between two pictures.

    Returns
    -------
    Picture
        One picture, uint8 [height, width, 3].
    """
    spaced = [_join(row, gap, axis=1) for row in rows]
    return _join(spaced, gap, axis=0)


def encode_png(picture: Picture) -> bytes:
    """Encode a picture as PNG.

    Parameters
    ----------
    picture
        uint8 [height, width, 3], BGR.

    Returns
    -------
    bytes
        The bytes of the file.
    """
    return cv2.imencode(".png", picture)[1].tobytes()


def encode_jpeg(picture: Picture) -> bytes:
    """Encode a picture as JPEG.

    Parameters
    ----------
    picture
        uint8 [height, width, 3], BGR.

    Returns
    -------
    bytes
        The bytes of the file.
    """
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def write_png(path: Path | str, picture: Picture) -> None:
    """Write a picture as PNG. The file is written completely or not at all.

    Parameters
    ----------
    path
        The file, ending in ``.png``.
    picture
        uint8 [height, width, 3], BGR.

    Raises
    ------
    OutputError
        If the name has another ending, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise OutputError(f"a picture is written as .png, not as {path.name!r}; give such a name")
    write_picture(path, picture)


def write_picture(path: Path | str, picture: Picture) -> None:
    """Write a picture as PNG or JPEG. The file is written completely or not at all.

    Parameters
    ----------
    path
        The file, ending in ``.png``, ``.jpg`` or ``.jpeg``.
    picture
        uint8 [height, width, 3], BGR.

    Raises
    ------
    OutputError
        If the name has another ending, or the file cannot be written.
    """
    path = Path(path)
    encode = {".png": encode_png, ".jpg": encode_jpeg, ".jpeg": encode_jpeg}.get(path.suffix.lower())
    if encode is None:
        raise OutputError(f"a picture is written as .png or .jpg, not as {path.name!r}; give such a name")
    write_atomically(path, encode(picture))


def _is_drawable(frame: Frame | None) -> TypeGuard[Frame]:
    """Return whether `to_bgr` accepts a frame. A fault may have anything that a caller passed."""
    if not isinstance(frame, np.ndarray) or frame.size == 0 or frame.dtype not in (np.uint8, np.uint16):
        return False
    return frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] in (1, 3))


def _relative(error_map: NDArray[Any], threshold: float) -> NDArray[np.uint8]:
    brightness = np.nan_to_num(error_map / max(2.0 * threshold, 1e-12), nan=1.0).clip(0.0, 1.0)
    return np.asarray(np.rint(brightness * 255.0), np.uint8)


def _draw_placement(picture: Picture, inspection: Inspection, scale: float, thickness: int) -> None:
    """Draw the crop's outline and, with a pose, a cross in the reference's middle with an arm along its x axis."""
    placement = inspection.placement
    if placement is None:
        return
    corners = np.rint(placement.outline() * scale).astype(np.int32)
    cv2.polylines(picture, [corners], True, _OUTLINE, thickness, cv2.LINE_AA)
    pose = placement.pose
    if pose is None:
        return
    middle, angle = np.array([pose.x, pose.y]) * scale, np.deg2rad(pose.angle)
    along = np.array([np.cos(angle), -np.sin(angle)]) * min(placement.width, placement.height) * scale / 8.0
    across = np.array([along[1], -along[0]]) / 2.0
    for start, end in ((middle, middle + along), (middle - across, middle + across)):
        first, last = ((round(float(x)), round(float(y))) for x, y in (start, end))
        cv2.line(picture, first, last, _OUTLINE, thickness, cv2.LINE_AA)


def _blend_heat(picture: Picture, error_map: NDArray[Any], inspection: Inspection) -> Picture:
    height, width = picture.shape[:2]
    relative = _relative(error_map, inspection.map_threshold)
    if inspection.placement is None:
        relative = np.asarray(cv2.resize(relative, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    else:
        relative = inspection.placement.map_in_frame(relative, (width, height))
    colours = cv2.applyColorMap(relative, cv2.COLORMAP_INFERNO)
    weight = cv2.LUT(relative, _WEIGHTS)
    return np.asarray(cv2.blendLinear(picture, colours, 1.0 - weight, weight), np.uint8)


def _banner(verdict: Verdict, height: int, width: int) -> Picture:
    scale = max(1.0, min(width / 512.0, height / 256.0))  # keeps text readable when a large picture is shown small
    banner = np.full((round(28 * scale), width, 3), _COLOURS[verdict.verdict], np.uint8)
    words = verdict.verdict.upper()
    if verdict.score is not None:
        words += f"  {_compare(verdict, verdict.score)}"
    elif verdict.reason:
        words += f"  {verdict.reason}"
    size, thick, left = 0.5 * scale, round(scale), round(6 * scale)
    while size > 0.25 and cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, thick)[0][0] > width - 2 * left:
        size -= 0.05
    corner = (left, round(19 * scale))
    cv2.putText(banner, words, corner, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), thick, cv2.LINE_AA)
    return banner


def _legend(inspection: Inspection, heat: bool, height: int, width: int) -> Picture:
    """Return a strip with the meaning of an overlay's marks, one line for each."""
    verdict, cut = inspection.verdict, f"{inspection.map_threshold:.4g}"
    if verdict.verdict == "ok":
        words = ["no marks: the part passes"]
    elif verdict.verdict == "fault":
        words = ["no marks: the part was not judged"]
    elif verdict.regions:
        words = [f"box: error of {cut} or more", "outline: where it is highest"]
    else:
        words = [f"no marks: no region has an error of {cut} or more"]
    if inspection.placement is not None:
        words.append(
            f"blue: the inspected region{', with the position of the part' if inspection.placement.pose else ''}"
        )
    if heat and inspection.error_map is not None:
        words.append(f"heat: orange at {cut}, white at twice that")
    scale = max(1.0, min(width / 512.0, height / 256.0))
    line, left, size, thick = round(20 * scale), round(6 * scale), 0.42 * scale, max(1, round(0.8 * scale))
    legend = np.full((line * len(words) + left, width, 3), 255, np.uint8)
    for number, text in enumerate(words):
        corner = (left, line * number + round(15 * scale))
        cv2.putText(legend, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, _EDGE, thick, cv2.LINE_AA)
    return legend


def _compare(verdict: Verdict, score: float) -> str:
    """Describe how a score compares with the cuts."""
    if verdict.verdict == "ng":
        return f"{score:.4g} >= {verdict.threshold:.4g}"
    if verdict.verdict == "review":
        return f"{verdict.review_threshold:.4g} <= {score:.4g} < {verdict.threshold:.4g}"
    return f"{score:.4g} < {verdict.threshold if verdict.review_threshold is None else verdict.review_threshold:.4g}"


def _join(pictures: Sequence[Picture], gap: int, axis: int) -> Picture:
    shape = list(pictures[0].shape)
    shape[axis] = gap
    space = np.full(shape, 255, np.uint8)
    spaced = [piece for picture in pictures for piece in (space, picture)][1:]
    return np.concatenate(spaced, axis=axis)
