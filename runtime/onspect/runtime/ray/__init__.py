"""Scoring beyond one process: archives of images, judged by the workers of a Ray cluster."""
