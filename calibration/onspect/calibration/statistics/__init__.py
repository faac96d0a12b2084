"""Intervals, the bootstrap, and the claims that a number of images can support."""
