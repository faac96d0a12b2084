"""Set a model file's threshold from labelled images, and measure and report how well it does; needs no torch."""
