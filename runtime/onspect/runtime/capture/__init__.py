"""Store frames of a source as picture files, for teaching and calibration."""
