"""Intervals, the bootstrap, and what a number of images can support."""
