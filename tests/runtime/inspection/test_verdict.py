from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.inspection.regions import Region, find_regions, find_regions_of_batch
from onspect.runtime.inspection.verdict import Verdict, decide
from onspect.runtime.judgement import JUDGEMENTS, WORST_FIRST, Judgement
from onspect.runtime.model.schema import Threshold

VERDICT = Verdict(
    "Teil ü.png", 3, "2026-01-01T00:00:00.000Z", "ng", 0.5, 0.25, (Region(1, 2, 3, 4, 0.75, 12),), 1.5, "m"
)

CUT = Threshold(score=0.25, map=0.5)


def test_score_at_the_threshold_is_ng() -> None:
    """A score equal to the threshold is ng, and the next number below it is ok."""
    assert decide(0.25, CUT) == "ng"
    assert decide(math.nextafter(0.25, 0), CUT) == "ok"


def test_the_table_has_every_verdict() -> None:
    """The table has each verdict once, and ranks ng above fault, fault above review, review above ok."""
    assert tuple(JUDGEMENTS) == get_args(Judgement)
    assert WORST_FIRST == ("ng", "fault", "review", "ok")
    assert [name for name, facts in JUDGEMENTS.items() if facts.rejected] == ["ng", "fault"]


def test_score_in_the_band_is_for_review() -> None:
    """From the band's lower end to just below the threshold a part is for review, and ok below the band."""
    band = Threshold(score=0.25, map=0.5, review=0.125)
    assert [decide(score, band) for score in (0.125, math.nextafter(0.25, 0))] == ["review", "review"]
    assert decide(0.25, band) == "ng"
    assert decide(math.nextafter(0.125, 0), band) == "ok"


@pytest.mark.parametrize("review", [0.25, 0.5, math.nan])
def test_band_that_is_none_is_refused(review: float) -> None:
    """A band that does not begin below the cut, or at no number, cannot be made."""
    with pytest.raises(ValueError, match="not below the threshold"):
        Threshold(score=0.25, map=0.5, review=review)


def test_area_below_nothing_is_refused() -> None:
    """A least area of fewer than 0 pixels cannot be made."""
    with pytest.raises(ValueError, match="0 or more"):
        Threshold(score=0.25, map=0.5, area=-1)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_score_that_is_not_finite_is_a_fault(score: float) -> None:
    """NaN and both infinities are faults, never ok and never ng."""
    assert decide(score, Threshold(score=0.25, map=0.5, review=0.125)) == "fault"


def test_regions_are_in_source_pixels() -> None:
    """Edges, size and area are scaled separately both ways."""
    error_map = np.zeros((10, 20), np.float32)
    error_map[2:4, 5:9] = 1.0
    regions = find_regions(error_map, CUT, width=40, height=50)
    assert regions == (Region(x=10, y=10, width=8, height=10, peak=1.0, area=80),)


def test_error_at_the_map_threshold_is_in_a_region() -> None:
    """A pixel equal to the threshold belongs to a region, one below does not."""
    error_map = np.array([[0.5, 0.25]], np.float32)
    regions = find_regions(error_map, CUT, 2, 1)
    assert [(region.x, region.width) for region in regions] == [(0, 1)]


def test_regions_are_sorted_by_peak() -> None:
    """The region with the highest error comes first, at any place."""
    error_map = np.zeros((9, 9), np.float32)
    error_map[0, 0], error_map[4, 4], error_map[8, 8] = 0.6, 0.9, 0.7
    assert [round(region.peak, 3) for region in find_regions(error_map, CUT, 9, 9)] == [0.9, 0.7, 0.6]


def test_peak_is_of_the_region_itself() -> None:
    """A stronger region inside another's bounding box does not lend it its peak."""
    error_map = np.zeros((7, 7), np.float32)
    error_map[0, :] = error_map[:, 0] = 0.6
    error_map[4, 4] = 0.9
    assert [round(region.peak, 3) for region in find_regions(error_map, CUT, 7, 7)] == [0.9, 0.6]


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    """Diagonal neighbours belong together."""
    assert len(find_regions(np.eye(3, dtype=np.float32), CUT, 3, 3)) == 1


def test_small_regions_are_left_out() -> None:
    """Regions of fewer working pixels than the least area are not reported, for any size of the frame."""
    error_map = np.zeros((9, 9), np.float32)
    error_map[0, :3], error_map[4, :4], error_map[8, :5] = 0.9, 0.8, 0.7
    least_four = Threshold(score=0.25, map=0.5, area=4)
    for side in (9, 3, 90):
        assert [round(region.peak, 3) for region in find_regions(error_map, least_four, side, side)] == [0.8, 0.7]


@pytest.mark.parametrize("verdict", ["ng", "review"])
def test_rejected_part_shows_where_whatever_the_area(verdict: Judgement) -> None:
    """The highest region of a part that is not ok is reported although it is small, and only that one of the small."""
    error_map = np.zeros((9, 9), np.float32)
    error_map[0, 0], error_map[4, :4], error_map[8, 8] = 0.9, 0.8, 0.7
    least_four = Threshold(score=0.25, map=0.5, area=4)
    found = find_regions(error_map, least_four, 9, 9, verdict)
    assert [round(region.peak, 3) for region in found] == [0.9, 0.8]


@pytest.mark.parametrize(("columns", "width"), [(7, 29), (7, 225), (28, 9), (128, 1), (16, 4000), (49, 58)])
def test_regions_stay_inside_the_image(columns: int, width: int) -> None:
    """A region at the far edge ends with the image, for any rounding of the scale."""
    error_map = np.zeros((columns, columns), np.float32)
    error_map[-1, -1] = 1.0
    whole = find_regions(np.ones((columns, columns), np.float32), CUT, width, width)
    corner = find_regions(error_map, CUT, width, width)
    assert (whole[0].x, whole[0].width, whole[0].height) == (0, width, width)
    assert corner[0].x + corner[0].width == corner[0].y + corner[0].height == width
    assert min(corner[0].width, corner[0].area) >= 1


def test_json_has_the_keys_of_the_interface() -> None:
    """A line of JSON has exactly the keys that the documentation promises, in their order, without a line break."""
    line = VERDICT.to_json()
    content = json.loads(line)
    assert "\n" not in line
    assert list(content) == [
        "source",
        "index",
        "time",
        "verdict",
        "score",
        "threshold",
        "regions",
        "latency_ms",
        "model",
        "reason",
        "part",
        "review_threshold",
        "pose_x",
        "pose_y",
        "pose_angle",
        "code",
    ]
    assert content["regions"] == [{"x": 1, "y": 2, "width": 3, "height": 4, "peak": 0.75, "area": 12}]
    assert content["source"] == "Teil ü.png"


def test_each_fact_has_its_place() -> None:
    """Facts of a verdict are stored under their own names, in the order of the fields."""
    names = [field.name for field in dataclasses.fields(Verdict)]
    values: list[Any] = list(range(len(names)))
    assert vars(Verdict(*values)) == dict(zip(names, values, strict=True))
    assert list(vars(Verdict(*values))) == names


def test_json_never_holds_nan() -> None:
    """A NaN, which is not JSON, is refused instead of written."""
    settings: dict[str, Any] = VERDICT.to_dict() | {"score": math.nan, "regions": ()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        Verdict(**settings).to_json()


def test_regions_are_those_of_a_plain_search() -> None:
    """Boxes, areas and peaks equal those found pixel by pixel, for high errors at any place."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        error_map = generator.random((13, 17), np.float32) * (generator.random((13, 17)) > 0.6)
        found = find_regions(error_map, CUT, width=17, height=13)
        assert sorted(found, key=repr) == sorted(search_plainly(error_map), key=repr)


def search_plainly(error_map: NDArray[np.float32]) -> list[Region]:
    """Return the regions of a map from 0.5 on, in its own pixels, found by walking from neighbour to neighbour."""
    left = {(int(y), int(x)) for y, x in np.argwhere(error_map >= 0.5)}
    regions = []
    while left:
        todo = [left.pop()]
        pixels = []
        while todo:
            y, x = todo.pop()
            pixels.append((y, x))
            near = {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            todo += near
        rows, columns = [y for y, _ in pixels], [x for _, x in pixels]
        size = max(columns) - min(columns) + 1, max(rows) - min(rows) + 1
        peak = max(float(error_map[pixel]) for pixel in pixels)
        regions.append(Region(min(columns), min(rows), *size, peak, len(pixels)))
    return regions


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (13, 17), (28, 28), (100, 200)])
def test_regions_do_not_depend_on_the_batch(rows: int, columns: int) -> None:
    """Each map's regions are those it has alone, though the next one's errors are as high where they would touch."""
    generator = np.random.default_rng(5)
    maps = (0.8 * generator.random((9, rows, columns), np.float32)).round(2)  # many peaks are equal
    maps[:, [0, -1]] = 0.75
    maps[4] = 0.25
    sizes = [(columns + 7 * number, rows + number) for number in range(9)]
    verdicts: list[Judgement] = ["ok", "ng", "review"] * 3
    cut = Threshold(score=0.25, map=0.75, area=2)
    found = find_regions_of_batch(maps, maps.max(axis=(1, 2)).tolist(), cut, sizes, verdicts)
    alone = [find_regions(one, cut, *size, verdict) for one, size, verdict in zip(maps, sizes, verdicts, strict=True)]
    assert found == alone
    assert found[4] == ()
    assert all(found[number] for number in (1, 2, 5, 7, 8))


def test_no_maps_have_no_regions() -> None:
    """A batch without a judged image does not fail."""
    assert find_regions_of_batch(np.zeros((0, 28, 28), np.float32), [], CUT, [], []) == []


@pytest.mark.parametrize("cut", [0.1, 0.3, 1e39, 1e-46])
def test_map_is_held_against_the_cut_itself(cut: float) -> None:
    """A float32 error just above the cut belongs to a region and one just below does not; the cut is not float32."""
    above = np.nextafter(np.float32(min(cut, 3e38)), np.float32(np.inf))
    found = find_regions(np.full((1, 1), above, np.float32), Threshold(cut, cut), 1, 1)
    assert len(found) == (float(above) >= cut)
    below = np.float32(0.0) if cut < 1e-40 else np.nextafter(np.float32(min(cut, 3e38)), np.float32(0.0))
    assert find_regions(np.full((1, 1), below, np.float32), Threshold(cut, cut), 1, 1) == ()
