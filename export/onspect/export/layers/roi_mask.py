"""The mask in the graph: pixels in ignored places do not influence any output.

It is not enough to leave out the error there. The encoder sees the whole image, and a spot in an ignored place changes
the reconstruction everywhere. So ignored places are filled before the networks see them, with the smoothed colours
around them, fading to black.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onspect.export.layers.gaussian import GaussianSmoothing

_REACH = 1.0 / 16.0  # standard deviation of the fill, as a share of the longer side
_NOTHING = 1e-6


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
