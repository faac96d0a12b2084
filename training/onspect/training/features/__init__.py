"""A frozen, pretrained network as a source of features, and the base file with which a device is taught."""

from __future__ import annotations

from onspect.training.features.backbone import BACKBONES, Backbone, find_backbone
from onspect.training.features.base import make_base

__all__ = ["BACKBONES", "Backbone", "find_backbone", "make_base"]
