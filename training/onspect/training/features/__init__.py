"""A frozen, pretrained network as a source of features, and the base file with which a device is taught.

Its names load when they are first used: the command line lists the command ``backbone`` without loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onspect.training.features.backbone import BACKBONES, Backbone, find_backbone
    from onspect.training.features.base import make_base

__all__ = ["BACKBONES", "Backbone", "find_backbone", "make_base"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "base" if name == "make_base" else "backbone"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
