"""Layers of the graphs: from bytes to planes of numbers, smoothing, and the mask.

Pixels in places that a mask ignores do not influence any output. It is not enough to leave out the error there. The
encoder sees the whole image, and a spot in an ignored place changes the reconstruction everywhere. So ignored places
are filled before the networks see them, with the smoothed colours around them, fading to black.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_TRUNCATE = 3.0  # weights beyond three standard deviations are ignored
_REACH = 1.0 / 16.0  # standard deviation of the fill, as a share of the longer side
_NOTHING = 1e-6


def to_planes(image: Tensor) -> Tensor:
    """Return images as planes of numbers.

    Parameters
    ----------
    image
        uint8 [n, height, width, channels].

    Returns
    -------
    Tensor
        float32 [n, channels, height, width], 0 to 1.
    """
    count, height, width, channels = image.shape
    # with one channel both layouts are the same bytes: a reshape costs nothing, a transpose would
    planes = image.reshape(count, 1, height, width) if channels == 1 else image.permute(0, 3, 1, 2)
    return planes.to(torch.float32) * (1.0 / 255.0)


class GaussianSmoothing(nn.Module):
    """Module that smooths maps with a Gaussian; edges are repeated.

    Two products with band matrices take 0.4 times the time of convolutions with one channel, which do not fill a
    processor's registers.

    Parameters
    ----------
    sigma
        Standard deviation in pixels, above 0.
    height, width
        Size of the maps in pixels.
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
        """Return the smoothed maps.

        Parameters
        ----------
        error_map
            float32 [n, 1, height, width].

        Returns
        -------
        Tensor
            float32 [n, 1, height, width].
        """
        return self.get_buffer("down") @ error_map @ self.get_buffer("across")


class FillIgnored(nn.Module):
    """Module that fills ignored places with a Gaussian mean of the inspected places near them.

    Places without an inspected place within three standard deviations become black.

    Parameters
    ----------
    mask
        bool [height, width], True where parts are inspected.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        height, width = mask.shape
        places = mask.float()[None, None]
        self.smooth = GaussianSmoothing(_REACH * max(height, width), height, width)
        self.register_buffer("places", places)
        self.register_buffer("paint", (1.0 - places) / self.smooth(places).clamp_min(_NOTHING))

    def forward(self, planes: Tensor) -> Tensor:
        """Return the filled images.

        Parameters
        ----------
        planes
            float32 [n, channels, height, width].

        Returns
        -------
        Tensor
            float32 [n, channels, height, width].
        """
        inspected = planes * self.get_buffer("places")
        painted: Tensor = inspected + self.smooth(inspected) * self.get_buffer("paint")
        return painted


class MaskedMap(nn.Module):
    """Module that leaves ignored places out of a smoothed error map.

    They are left out before and after smoothing. Each place is divided by the share of its smoothing window that is
    inspected. So a place beside the border is a mean of inspected places only.

    Parameters
    ----------
    mask
        bool [height, width], True where parts are inspected.
    smooth
        Module that smooths maps [n, 1, height, width].
    """

    def __init__(self, mask: Tensor, smooth: nn.Module) -> None:
        super().__init__()
        self.share = float(mask.double().mean())
        """The share of places that are inspected, 0 to 1."""
        places = mask.float()[None, None]
        with torch.no_grad():
            after = places / smooth(places).clamp_min(_NOTHING)
        self.register_buffer("before", places)
        self.register_buffer("after", after)

    def forward(self, error: Tensor, smooth: nn.Module) -> Tensor:
        """Return the error map.

        Parameters
        ----------
        error
            float32 [n, 1, height, width].
        smooth
            The module that the constructor got.

        Returns
        -------
        Tensor
            float32 [n, 1, height, width], 0 in ignored places.
        """
        error_map: Tensor = smooth(error * self.get_buffer("before")) * self.get_buffer("after")
        return error_map

    def mean(self, error_map: Tensor) -> Tensor:
        """Return the mean of each map over the inspected places.

        Parameters
        ----------
        error_map
            float32 [n, height, width], 0 in ignored places.

        Returns
        -------
        Tensor
            float32 [n].
        """
        return error_map.mean(dim=(1, 2)) / self.share
