from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.images.placement import Placement, Pose, place_at_pose, place_region
from onspect.runtime.images.preprocess import place, prepare
from onspect.runtime.images.region import (
    Reference,
    RegionFile,
    draw_region,
    format_region,
    mask_of_region,
    parse_region,
    read_region,
)
from onspect.runtime.model.schema import Preprocess, RegionOfInterest, SourceLimits

FRAME = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)
WHOLE = Preprocess(32, 32, 1, 65535, SourceLimits((1,), None, None))
DRAWN = RegionFile(
    rectangles=((10, 8, 20, 16),),
    polygons=(((30, 20), (50, 20), (40, 40)),),
    ignored_rectangles=((12, 10, 4, 4),),
    ignored_polygons=(((36, 24), (44, 24), (40, 30)),),
    frame=(80, 60),
    mask=Path("mask.png"),
    reference=Reference(Path("good/0.png"), (5, 6, 30, 20), 90.0, 0.1),
)


def test_rectangles_of_the_option_are_joined() -> None:
    """Two --roi make one box; its area outside both rectangles is not inspected."""
    region = parse_region(["10,8,20,16", "40, 30, 10, 10"]).place(80, 60)
    assert region.box == (10, 8, 40, 32)
    inspected = draw_region(region)
    assert inspected.shape == (32, 40)
    assert int(np.count_nonzero(inspected)) == 20 * 16 + 10 * 10
    assert inspected[0, 0] == inspected[31, 39] == 255
    assert inspected[0, 39] == inspected[31, 0] == 0


def test_one_rectangle_crops_and_has_no_mask() -> None:
    """The model input of a region is that of the same pixels cut out by hand."""
    preprocess = dataclasses.replace(WHOLE, region=parse_region(["10,8,40,32"]).place(80, 60))
    assert np.array_equal(prepare(FRAME, preprocess), prepare(np.ascontiguousarray(FRAME[8:40, 10:50]), WHOLE))
    assert mask_of_region(preprocess) is None
    assert mask_of_region(WHOLE) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["10,8,20"], "has 3 numbers"),
        (["10,8,0,5"], "0x5 pixels; width and height are at least 1"),
        (["1,2,3,4", "roi.toml"], "'roi.toml' is a file"),
        (["-1,2,3,4"], "--roi is '-1,2,3,4'; x, y, width and height are whole pixels from 0"),
        (["1,2,3.5,4"], "whole pixels"),
        (["nowhere.toml"], "cannot read the region's file 'nowhere.toml'"),
    ],
)
def test_option_that_is_no_region_is_refused(values: list[str], words: str) -> None:
    """Each mistake is one sentence with the value."""
    with pytest.raises(ChoiceError, match=words):
        parse_region(values)


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All of a region comes back from its file; names in it are relative to the file's folder."""
    assert DRAWN.mask is not None
    assert DRAWN.reference is not None
    region = dataclasses.replace(
        DRAWN,
        mask=tmp_path / DRAWN.mask,
        reference=dataclasses.replace(DRAWN.reference, picture=tmp_path / "good/0.png"),
    )
    path = tmp_path / "roi.toml"
    path.write_text(format_region(region, tmp_path))
    assert 'picture = "good/0.png"' in path.read_text()
    assert region.reference is not None
    reference = dataclasses.replace(region.reference, picture=str(region.reference.picture))
    assert format_region(dataclasses.replace(region, mask=str(region.mask), reference=reference), tmp_path) == (
        path.read_text()
    )
    assert read_region(path) == region
    assert parse_region([str(path)]) == region
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Notepad saves it
    assert read_region(path) == region


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rectangles = [[1, 2, 3]]", "rectangles has"),
        ("rectangles = [[1, 2, 3.5, 4]]", "in whole pixels"),
        ("rectangles = 5", "give a list"),
        ("polygons = [[[1, 2], [3, 4]]]", "at least three corners"),
        ("polygons = [[[10, 10], [20, 20], [40, 40]]]", "corners are on one line"),
        ("polygons = [[[0, 0], [9, 9], [9, 0], [0, 9]]]", r"\[0, 0\]-\[9, 9\] and \[9, 0\]-\[0, 9\] cross"),
        ("[ignore]\npolygons = [[[5, 0], [8, 9], [0, 3], [9, 3], [2, 9]]]", "the inside is not clear"),
        ("polygons = [[[1, 2], [3, 4], [5]]]", "give two whole numbers"),
        ("frame = [640]", "give two whole numbers"),
        ("mask = 3", "give a file's name"),
        ("colour = 1", "has the unknown key 'colour'"),
        ("ignore = 1", "it is a table"),
        ("[ignore]\ncircles = []", "has the unknown key 'circles'"),
        ("[reference]\nturn = 200", "largest rotation is 200"),
        ("[reference]\nturn = true", "give a number"),
        (f"[reference]\nturn = 1{'0' * 400}", "is inf degrees; give 0 to 180"),
        ("[reference]\nscale = 0.5", "largest change of size is 0.5"),
        ("[reference]\npatch = [1, 2, 3, 0]", "at least 1"),
        ("rectangles = [", "is not TOML"),
    ],
)
def test_file_that_is_wrong_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """A wrong key or value is named, with the file."""
    path = tmp_path / "roi.toml"
    path.write_text(text)
    with pytest.raises(ChoiceError, match=words) as caught:
        read_region(path)
    assert "roi.toml" in str(caught.value) or "largest" in str(caught.value)


def test_region_outside_the_pictures_is_refused() -> None:
    """At teaching, a region that leaves the pictures is refused with both sizes."""
    with pytest.raises(ChoiceError, match=r"40x32 pixels at 50,8 does not fit into the pictures of 80x60"):
        parse_region(["50,8,40,32"]).place(80, 60)
    with pytest.raises(ChoiceError, match=r"drawn on a picture of 80x60 pixels, and the good pictures have 40x30"):
        DRAWN.place(40, 30)


def test_region_outside_the_frame_is_a_fault() -> None:
    """On the line, a frame that the region does not fit into is an ImageError with both sizes."""
    preprocess = dataclasses.replace(WHOLE, region=parse_region(["40,8,40,32"]).place(80, 60))
    with pytest.raises(ImageError, match=r"40x32 pixels at 40,8 does not fit into the frame of 70x60"):
        prepare(np.ascontiguousarray(FRAME[:, :70]), preprocess)


def test_ignored_places_are_not_inspected() -> None:
    """Polygons join rectangles; ignored areas leave both; the mask at the working size says so too."""
    region = DRAWN.place(80, 60)
    assert region.box == (10, 8, 41, 33)
    inspected = draw_region(region)
    assert inspected[2, 2] == 0  # ignored rectangle
    assert inspected[0, 0] == 255
    assert inspected[25 - 8, 40 - 10] == 0  # ignored polygon
    assert inspected[38 - 8, 40 - 10] == 255  # tip of the polygon
    mask = mask_of_region(dataclasses.replace(WHOLE, region=region))
    assert mask is not None
    assert mask.shape == (32, 32)
    assert 0.3 < mask.mean() < 0.6


def test_region_that_leaves_nothing_is_refused() -> None:
    """A region that is ignored as a whole is refused."""
    region = RegionFile(rectangles=((0, 0, 9, 9),), ignored_rectangles=((0, 0, 9, 9),)).place(80, 60)
    with pytest.raises(ChoiceError, match="leaves nothing to inspect"):
        mask_of_region(dataclasses.replace(WHOLE, region=region))


def test_boxes_and_maps_go_back_to_the_frame() -> None:
    """Regions of the crop are reported at their place in the frame."""
    placement = place(FRAME, dataclasses.replace(WHOLE, region=parse_region(["10,8,40,32"]).place(80, 60)))
    assert placement is not None
    assert placement.box_in_frame(3, 4, 5, 6) == (13, 12, 5, 6)
    spot = np.zeros((16, 20), np.float32)
    spot[4:6, 8:10] = 1.0
    whole = placement.map_in_frame(spot)
    assert whole.shape == (60, 80)
    row, column = np.unravel_index(whole.argmax(), whole.shape)
    assert (abs(row - 17.5) < 2, abs(column - 27.5) < 2) == (True, True)
    assert not whole[:8].any()
    assert not whole[:, 50:].any()


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, -37.0])
def test_crop_at_a_pose_is_the_part_turned_back(angle: float) -> None:
    """A part that was turned and shifted gives the same crop, and its points map back to the frame."""
    side, region = 120, RegionOfInterest((40, 40, 40, 40), (120, 120))
    reference = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (side, side), np.uint8), (0, 0), 3)
    matrix = cv2.getRotationMatrix2D((59.5, 59.5), angle, 1.0)  # counter-clockwise about the middle of the picture
    matrix[:, 2] += (7, -5)
    frame = cv2.warpAffine(reference, matrix, (side, side), flags=cv2.INTER_CUBIC)
    placement = place_at_pose(region, (40, 40, 40, 40), Pose(67.0, 55.0, angle), (side, side))
    crop = placement.cut(frame)
    assert np.abs(crop.astype(int) - reference[40:80, 40:80]).mean() < 2.0
    middle = placement.points_in_frame(np.array([[20.0, 20.0]]))[0]
    assert middle == pytest.approx([67.0, 55.0])
    assert placement.area_factor == pytest.approx(1.0)
    x, y, width, height = placement.box_in_frame(15, 15, 10, 10)
    assert x < 67 < x + width
    assert y < 55 < y + height


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((80, 80), (80, 80)), ((38, 38), (38, 38)), ((32, 32), (64, 64)), ((16, 40), (48, 40)), ((10, 10), (40, 40))],
)
def test_crop_at_a_pose_has_whole_multiples_of_the_wanted_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """An enlarged crop has the wanted size; one to be shrunk keeps about the frame's pixels: nothing aliases."""
    region = RegionOfInterest((40, 40, 40, 40), (120, 120))
    placement = place_at_pose(region, (40, 40, 40, 40), Pose(60.0, 60.0, 20.0), (120, 120))
    frame = np.zeros((120, 120, 3), np.uint8)
    assert placement.cut(frame, size).shape == (wanted[1], wanted[0], 3)
    assert placement.cut(frame).shape == (40, 40, 3)


def _stripes(placement: Placement, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stripes of 4 pixels that are on the part, at points of the frame."""
    part = (np.stack([columns, rows], axis=-1) - placement.rows[:, 2]) @ np.linalg.inv(placement.rows[:, :2]).T
    return np.asarray(128.0 + 100.0 * np.sin(2.0 * np.pi * part[..., 0] / 4.0))


@pytest.mark.parametrize("angle", [10.0, 45.0, -130.0])
def test_crop_at_a_pose_is_resampled_once(angle: float) -> None:
    """Fine stripes of a turned part are less blurred at the wanted size than by turning first and resizing then."""
    region = RegionOfInterest((40, 40, 40, 40), (120, 120))
    placement = place_at_pose(region, (40, 40, 40, 40), Pose(61.3, 58.8, angle), (120, 120))
    columns, rows = np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5)
    frame = np.rint(_stripes(placement, columns, rows)).astype(np.uint8)
    across, down = np.meshgrid((np.arange(80) + 0.5) / 2.0, (np.arange(80) + 0.5) / 2.0)
    points = placement.points_in_frame(np.stack([across.ravel(), down.ravel()], axis=-1))
    wanted = _stripes(placement, points[:, 0], points[:, 1]).reshape(80, 80)
    once = np.abs(placement.cut(frame, (80, 80)) - wanted).mean()
    twice = np.abs(cv2.resize(placement.cut(frame), (80, 80), interpolation=cv2.INTER_LINEAR) - wanted).mean()
    assert once < 0.7 * twice


def test_part_that_the_edge_cuts_is_a_fault() -> None:
    """A region that is partly outside the frame is no place to judge."""
    region = RegionOfInterest((40, 40, 40, 40), (120, 120))
    with pytest.raises(ImageError, match=r"cut by the edge of the frame: 2\d%"):
        place_at_pose(region, (40, 40, 40, 40), Pose(10.0, 60.0, 0.0), (120, 120))
    circle = tuple((round(60 + 19 * np.cos(t)), round(60 + 19 * np.sin(t))) for t in np.arange(0, 6.28, 0.4))
    round_region = dataclasses.replace(region, polygons=(circle,))
    assert place_at_pose(round_region, (40, 40, 40, 40), Pose(21.0, 60.0, 45.0), (120, 120)).pose is not None


def test_region_is_described() -> None:
    """The card's words have the box, the frame and the shapes."""
    words = DRAWN.place(80, 60).describe()
    assert words == "41x33 at 10,8 of 80x60 pixels, 1 rectangle, 1 polygon, 2 ignored areas"


def test_upright_placement_is_exact() -> None:
    """Without an alignment the crop is a view, so that no pixel changes."""
    placement = place_region(RegionOfInterest((10, 8, 40, 32), (80, 60)), 80, 60)
    assert np.shares_memory(placement.cut(FRAME), FRAME)
