"""A memory of good parts, taught with numpy, OpenCV and onnxruntime alone."""

from __future__ import annotations

from onspect.runtime.teaching.teacher import Lone, Taught, add, take_back, teach

__all__ = ["Lone", "Taught", "add", "take_back", "teach"]
