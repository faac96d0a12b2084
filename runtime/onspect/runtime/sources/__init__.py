"""Sources of frames: folders of images, video files, and cameras of all kinds.

A source is a context manager and an iterable of `Capture`. Iterating opens it; iterating again opens it again, so that
a line can recover from a read that hangs.
"""

from __future__ import annotations

from onspect.runtime.sources.base import Capture, Source
from onspect.runtime.sources.registry import open_source

__all__ = ["Capture", "Source", "open_source"]
