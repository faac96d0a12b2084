"""Tiles of large images: what the networks see in place of the whole, and how their answers become one again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onspect.runtime.model.schema import Tiling


class Tiles:
    """The tiles of images, uint8 [n, height, width, channels], in a row: all of the first image, then of the next.

    They are cut out when they are asked for, so that they take no memory beside the images'. Like an array it has a
    shape, a size and a length, and takes an index, a slice or an array of indices.
    """

    def __init__(self, images: NDArray[np.uint8], tiling: Tiling) -> None:
        self.images = images
        self.tiling = tiling
        self.shape = (len(images) * tiling.count, tiling.height, tiling.width, images.shape[3])

    @property
    def size(self) -> int:
        """How many values all tiles have together."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: int | np.integer | slice | NDArray[np.integer]) -> NDArray[np.uint8]:
        if isinstance(chosen, slice):
            chosen = np.arange(len(self))[chosen]
        if not isinstance(chosen, np.ndarray):
            return self._cut(int(chosen))
        found = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for place, index in enumerate(chosen):
            found[place] = self._cut(int(index))
        return found

    def _cut(self, index: int) -> NDArray[np.uint8]:
        image, place = divmod(index, self.tiling.count)
        top, left = place_of(self.tiling, place)
        return self.images[image, top : top + self.tiling.height, left : left + self.tiling.width]


Images = NDArray[np.uint8] | NDArray[np.float16] | Tiles
"""What networks train on: images, uint8 [n, height, width, channels], tiles of them, or features of places, float16
[n, 1, 1, channels]."""

Batch = NDArray[np.uint8] | NDArray[np.float16]
"""Some of them."""


def place_of(tiling: Tiling, index: int) -> tuple[int, int]:
    """Return top and left of an image's tile."""
    row, column = divmod(index, len(tiling.lefts))
    return tiling.tops[row], tiling.lefts[column]


class Cut(nn.Module):
    """Cut images [n, c, height, width] into their tiles [n * tiles, c, tile height, tile width], image by image."""

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tiling = tiling

    def forward(self, planes: Tensor) -> Tensor:
        """Return the tiles."""
        tiling = self.tiling
        rows = torch.stack([planes[:, :, top : top + tiling.height] for top in tiling.tops], dim=1)
        tiles = torch.stack([rows[..., left : left + tiling.width] for left in tiling.lefts], dim=2)
        return tiles.flatten(0, 2)


class Stitching(nn.Module):
    """Join what was made of tiles [n * tiles, c, h, w] to what is of images [n, c, height, width].

    Where tiles overlap it is their mean, each weighed by how far the place is from the tile's edge, down and across, so
    that no seam is seen: a network knows least at the edge of what it sees.

    Put together from slices: on a processor a tenth of the time of two products with band matrices, which would be
    larger than the networks.
    """

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tops, self.lefts = tiling.tops, tiling.lefts
        self.register_buffer("down", _weigh(tiling.tops, tiling.height)[:, :, None])
        self.register_buffer("across", _weigh(tiling.lefts, tiling.width)[:, None, :])

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the joined maps or images."""
        grid = tiles.reshape(-1, len(self.tops), len(self.lefts), *tiles.shape[1:])
        rows = _join(grid.unbind(2), self.lefts, self.get_buffer("across"), dim=-1)
        return _join(rows.unbind(1), self.tops, self.get_buffer("down"), dim=-2)


def _weigh(starts: Sequence[int], side: int) -> Tensor:
    """Return [tiles, side]: what each place of each tile of a line counts, so that it is 1 in all at every pixel."""
    distance = torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1)).double()
    total = torch.zeros(starts[-1] + side, dtype=torch.float64)
    for start in starts:
        total[start : start + side] += distance
    return torch.stack([distance / total[start : start + side] for start in starts]).float()


def _join(tiles: Sequence[Tensor], starts: Sequence[int], weights: Tensor, dim: int) -> Tensor:
    """Join a line of tiles along a dimension, stretch by stretch between the edges of tiles."""
    side = tiles[0].shape[dim]
    edges = sorted({*starts, *(start + side for start in starts)})
    stretches = []
    for begin, end in pairwise(edges):
        covering = [index for index, start in enumerate(starts) if start <= begin and end <= start + side]
        pieces = [tiles[index].narrow(dim, begin - starts[index], end - begin) for index in covering]
        if len(covering) > 1:
            shares = [weights[index].narrow(dim, begin - starts[index], end - begin) for index in covering]
            pieces = [reduce(torch.add, map(torch.mul, pieces, shares))]
        stretches += pieces
    return torch.cat(stretches, dim)
