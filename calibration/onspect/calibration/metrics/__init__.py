"""Metrics of scores and of error maps."""
