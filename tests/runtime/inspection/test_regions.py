"""Regions of any map, compared with a flood fill."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from onspect.runtime.inspection.regions import Region, find_regions, find_regions_of_batch
from onspect.runtime.judgement import Judgement
from onspect.runtime.model.schema import Threshold

Map = NDArray[np.float32]

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LEVELS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
CUTS = st.builds(Threshold, st.just(1.0), st.sampled_from([0.25, 0.5, 0.6]), st.none(), st.integers(0, 4))
JUDGEMENTS = st.sampled_from(["ok", "ng", "review"])


def maps(shape: tuple[int, int]) -> st.SearchStrategy[Map]:
    """Return a strategy for error maps of a shape."""
    return arrays.arrays(np.float32, shape, elements=LEVELS)


def flood(error_map: Map, cut: float) -> list[Region]:
    """Return the regions of a map, 8 neighbours, highest peak first and then as they are met row by row."""
    left = {(int(y), int(x)) for y, x in np.argwhere(error_map >= cut)}
    found = []
    while left:
        region, border = set(), [min(left)]
        while border:
            y, x = border.pop()
            if (y, x) in left:
                left.remove((y, x))
                region.add((y, x))
                border += [(y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
        ys, xs = zip(*region, strict=True)
        peak = max(float(error_map[place]) for place in region)
        size = (max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)
        found.append(Region(min(xs), min(ys), *size, peak, len(region)))
    return sorted(found, key=lambda region: (-region.peak, region.y, region.x))


@given(st.data(), CUTS, JUDGEMENTS)
def test_regions_are_those_of_a_flood_fill(data: st.DataObject, cut: Threshold, judgement: Judgement) -> None:
    """Boxes, areas and peaks are a flood fill's; small ones are left out, but not the one that decides an ng."""
    error_map = data.draw(SHAPES.flatmap(maps))
    height, width = error_map.shape
    expected = [
        region
        for place, region in enumerate(flood(error_map, cut.map))
        if region.area >= cut.area or (place == 0 and judgement != "ok")
    ]
    assert find_regions(error_map, cut, width, height, judgement) == tuple(expected)


@given(st.data(), CUTS)
def test_a_batch_s_regions_are_those_of_each_map(data: st.DataObject, cut: Threshold) -> None:
    """However many maps are searched together, each has the regions that it has alone, inside its image."""
    shape = data.draw(SHAPES)
    count = data.draw(st.integers(1, 5))
    stack = np.stack([data.draw(maps(shape)) for _ in range(count)])
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=count, max_size=count))
    judgements = data.draw(st.lists(JUDGEMENTS, min_size=count, max_size=count))
    peaks = [float(one.max()) for one in stack]
    together = find_regions_of_batch(stack, peaks, cut, sizes, judgements)
    for error_map, size, judgement, regions in zip(stack, sizes, judgements, together, strict=True):
        assert regions == find_regions(error_map, cut, *size, judgement)
        for region in regions:
            assert 0 <= region.x < region.x + region.width <= size[0]
            assert 0 <= region.y < region.y + region.height <= size[1]
            assert region.area >= 1
