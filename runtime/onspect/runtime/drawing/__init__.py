"""The page on which a region is drawn: rectangles, polygons, ignored areas and the reference patch."""

from onspect.runtime.drawing.server import RegionPage

__all__ = ["RegionPage"]
