"""First step of every graph: from bytes as a camera gives them to planes of numbers."""

from __future__ import annotations

import torch
from torch import Tensor


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
