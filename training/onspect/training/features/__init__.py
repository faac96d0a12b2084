"""A frozen, pretrained network as a source of features, and the base file with which a device is taught.

Its names load when they are first used: the command line lists the command ``backbone`` without loading torch.
"""

from __future__ import annotations

from onspect.training.features.base import make_base
from onspect.training.features.trunk import BACKBONES, DEFAULT, Backbone, find_backbone

DEFAULT_BACKBONE = DEFAULT

__all__ = ["BACKBONES", "DEFAULT_BACKBONE", "Backbone", "find_backbone", "make_base"]
