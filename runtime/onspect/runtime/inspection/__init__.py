"""Inspection: from an image to a verdict."""
