"""A memory of good parts, taught with numpy, OpenCV and onnxruntime alone."""

from __future__ import annotations

from onspect.runtime.teaching.additions import add, take_back
from onspect.runtime.teaching.taught import Lone, Taught
from onspect.runtime.teaching.teacher import teach

__all__ = ["Lone", "Taught", "add", "take_back", "teach"]
