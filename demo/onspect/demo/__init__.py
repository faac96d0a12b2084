"""The whole job on parts that onspect draws itself: train, export, calibrate, evaluate, score."""
