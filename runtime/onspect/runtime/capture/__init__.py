"""Frames of a source become picture files to teach and calibrate with."""
