"""Tiles of large images: the networks see one tile at a time, and their outputs are stitched together."""

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
    """All tiles of a set of images, image by image.

    A tile is cut when it is indexed, so tiles take no memory of their own. The object has shape, size and length, and
    takes an index, a slice or an array of indices, as an array does.

    Parameters
    ----------
    images
        uint8 [n, height, width, channels].
    tiling
        Size and positions of the tiles.
    """

    def __init__(self, images: NDArray[np.uint8], tiling: Tiling) -> None:
        self.images = images
        self.tiling = tiling
        self.shape = (len(images) * tiling.count, tiling.height, tiling.width, images.shape[3])

    @property
    def size(self) -> int:
        """Number of values of all tiles together."""
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
"""Training data: images, uint8 [n, height, width, channels], tiles of them, or features of places, float16
[n, 1, 1, channels]."""

Batch = NDArray[np.uint8] | NDArray[np.float16]
"""A batch of `Images`."""


def place_of(tiling: Tiling, index: int) -> tuple[int, int]:
    """Return the position of a tile within its image.

    Parameters
    ----------
    tiling
        Size and positions of the tiles.
    index
        Number of the tile, row by row from 0.

    Returns
    -------
    tuple[int, int]
        Top and left in pixels.
    """
    row, column = divmod(index, len(tiling.lefts))
    return tiling.tops[row], tiling.lefts[column]


class Cut(nn.Module):
    """Module that cuts images into their tiles."""

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tiling = tiling

    def forward(self, planes: Tensor) -> Tensor:
        """Return the tiles, image by image.

        Parameters
        ----------
        planes
            float32 [n, channels, height, width].

        Returns
        -------
        Tensor
            float32 [n * tiles, channels, tile height, tile width].
        """
        tiling = self.tiling
        rows = torch.stack([planes[:, :, top : top + tiling.height] for top in tiling.tops], dim=1)
        tiles = torch.stack([rows[..., left : left + tiling.width] for left in tiling.lefts], dim=2)
        return tiles.flatten(0, 2)


class Stitching(nn.Module):
    """Module that joins the outputs for tiles to outputs for whole images.

    Overlapping tiles are averaged. The weight of a pixel grows with its distance from the tile's edge, down and across,
    so no seam is visible. Networks are least accurate at the edges of their input.

    The result is put together from slices. On a CPU this takes a tenth of the time of two products with band matrices,
    and those would be larger than the networks.
    """

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tops, self.lefts = tiling.tops, tiling.lefts
        self.register_buffer("down", _weigh(tiling.tops, tiling.height)[:, :, None])
        self.register_buffer("across", _weigh(tiling.lefts, tiling.width)[:, None, :])

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the joined maps or images.

        Parameters
        ----------
        tiles
            float32 [n * tiles, channels, tile height, tile width].

        Returns
        -------
        Tensor
            float32 [n, channels, height, width].
        """
        grid = tiles.reshape(-1, len(self.tops), len(self.lefts), *tiles.shape[1:])
        rows = _join(grid.unbind(2), self.lefts, self.get_buffer("across"), dim=-1)
        return _join(rows.unbind(1), self.tops, self.get_buffer("down"), dim=-2)


def _weigh(starts: Sequence[int], side: int) -> Tensor:
    """Return [tiles, side]: weight of each pixel of each tile in a line; the weights sum to 1 at every pixel."""
    distance = torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1)).double()
    total = torch.zeros(starts[-1] + side, dtype=torch.float64)
    for start in starts:
        total[start : start + side] += distance
    return torch.stack([distance / total[start : start + side] for start in starts]).float()


def _join(tiles: Sequence[Tensor], starts: Sequence[int], weights: Tensor, dim: int) -> Tensor:
    """Join a line of tiles along a dimension, section by section between the edges of tiles."""
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
