"""Recalibration: a new threshold from good frames of the line."""
