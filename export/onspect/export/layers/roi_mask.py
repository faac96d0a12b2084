"""What a mask does in the graph: nothing that an image shows in ignored places has a say in what comes out.

To leave out the error there is not enough: the encoder sees the whole image, and a blot in an ignored place changes
the reconstruction of all others. So ignored places are painted over before the networks see them, with the smoothed
colours around them, fading to black.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onspect.export.layers.gaussian import GaussianSmoothing

_REACH = 1.0 / 16.0  # of the longer side: the standard deviation of what is taken from around an ignored place
_NOTHING = 1e-6


class Surroundings(nn.Module):
    """Paint over the ignored places of images [n, channels, h, w] with a Gaussian mean of the inspected ones near them.

    Where nothing is inspected within three standard deviations, it is black. mask is bool [h, w], true where a part is
    inspected.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        height, width = mask.shape
        places = mask.float()[None, None]
        self.smooth = GaussianSmoothing(_REACH * max(height, width), height, width)
        self.register_buffer("places", places)
        self.register_buffer("paint", (1.0 - places) / self.smooth(places).clamp_min(_NOTHING))

    def forward(self, planes: Tensor) -> Tensor:
        """Return the images, painted over."""
        inspected = planes * self.get_buffer("places")
        painted: Tensor = inspected + self.smooth(inspected) * self.get_buffer("paint")
        return painted


class Inspected(nn.Module):
    """Leave ignored places out of errors [n, 1, h, w] that are smoothed.

    They are left out before as well as after, and each place is divided by the share of its smoothing window that is
    left: a place beside the border then shows a mean of inspected ones alone. mask is as in `Surroundings`.
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
        """Return the error map, 0 in ignored places; smooth is the module given above."""
        error_map: Tensor = smooth(error * self.get_buffer("before")) * self.get_buffer("after")
        return error_map

    def mean(self, error_map: Tensor) -> Tensor:
        """Return each map's mean over the inspected places, [n]; maps [n, h, w] are 0 in the others."""
        return error_map.mean(dim=(1, 2)) / self.share
