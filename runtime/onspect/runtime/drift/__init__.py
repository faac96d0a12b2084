"""Drift: whether the scores of a line still look like those of the calibration."""
