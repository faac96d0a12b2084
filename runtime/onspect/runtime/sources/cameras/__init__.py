"""Cameras: GenICam, GenTL and those that OpenCV opens."""
