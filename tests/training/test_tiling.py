"""Tilings of any size: they cover the image, overlap, and stitching the tiles gives the image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from onspect.runtime.model.schema import Tiling
from onspect.training.config import design_tiling
from onspect.training.tiles import Cut, Stitching, Tiles, place_of

SIDES = st.integers(32, 1600).flatmap(lambda tile: st.tuples(st.just(tile), st.integers(tile, 4 * tile)))
"""A tile's side and the image's."""


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    """Return a tiling that `design_tiling` makes."""
    (wide, width), (high, height) = draw(SIDES), draw(SIDES)
    if (wide, high) == (width, height):
        width += 1
    return design_tiling("fast", height, width, (wide, high))


@st.composite
def small_tilings(draw: st.DrawFn) -> Tiling:
    """Return any tiling of a few pixels without gaps, also one that `design_tiling` would not make."""
    sides = []
    for _ in range(2):
        side = draw(st.integers(1, 6))
        steps = draw(st.lists(st.integers(1, side), max_size=3))
        sides.append((side, tuple(int(start) for start in np.cumsum([0, *steps]))))
    (width, lefts), (height, tops) = sides
    return Tiling(width, height, lefts, tops)


@given(tilings())
def test_tiles_cover_the_image_and_overlap(tiling: Tiling) -> None:
    """Every pixel is in a tile; neighbours share an eighth or more and are spread evenly."""
    width, height = tiling.image_size
    for side, starts, whole in ((tiling.width, tiling.lefts, width), (tiling.height, tiling.tops, height)):
        covered = np.zeros(whole, bool)
        for start in starts:
            assert 0 <= start <= whole - side
            covered[start : start + side] = True
        assert covered.all()
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        assert all(0 < gap <= side - side / 8 for gap in gaps)
        assert not gaps or max(gaps) - min(gaps) <= 1


@given(small_tilings(), st.integers(1, 2), st.integers(1, 3))
def test_what_is_cut_is_stitched_to_itself(tiling: Tiling, count: int, channels: int) -> None:
    """The tiles of images, joined again, are the images, and the array's tiles are the graph's."""
    width, height = tiling.image_size
    images = np.random.default_rng(width).integers(0, 256, (count, height, width, channels), np.uint8)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    tiles = Cut(tiling)(planes)
    torch.testing.assert_close(Stitching(tiling)(tiles), planes)
    assert np.array_equal(Tiles(images, tiling)[:], tiles.permute(0, 2, 3, 1).numpy())
    for index in range(tiling.count):
        top, left = place_of(tiling, index)
        expected = images[0, top : top + tiling.height, left : left + tiling.width]
        assert np.array_equal(Tiles(images, tiling)[index], expected)
